"""Stands in for libmount's own Python module, which Debian does not carry: the three names that crun's tests use."""

import collections

Fs = collections.namedtuple("Fs", "target vfs_options fs_options")


class Table:
    """What a file in the form of /proc/self/mountinfo lists."""

    def __init__(self, path):
        with open(path) as lines:
            fields = [line.split() for line in lines if " - " in line]
        self.mounts = [Fs(field[4], field[5], field[-1]) for field in fields]

    def find_target(self, target):
        """The uppermost mount on that place."""
        return next(mount for mount in reversed(self.mounts) if mount.target == target)
