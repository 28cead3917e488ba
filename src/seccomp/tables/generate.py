#!/usr/bin/env python3
"""Writes calls.tsv: the number of every system call on every architecture, from the kernel's own headers.

    apt-get download linux-libc-dev            # Debian 13 or later: one package holds all architectures
    dpkg-deb -x linux-libc-dev_*.deb NEW
    ./generate.py NEW/usr/lib/linux/uapi [OLD/usr/lib/linux/uapi] > calls.tsv

A second tree, of an older kernel, gives what the newer one dropped (31-bit s390 left with Linux 6.19).
The kept file was made from linux-libc-dev 7.2.13-1 (sid) and 6.12.117-1 (trixie).
"""
import pathlib
import re
import sys

HEADERS = {
    "x86_64": "x86/asm/unistd_64.h", "x86": "x86/asm/unistd_32.h", "x32": "x86/asm/unistd_x32.h",
    "aarch64": "arm64/asm/unistd_64.h", "arm": "arm/asm/unistd-eabi.h", "riscv64": "riscv/asm/unistd_64.h",
    "loongarch64": "loongarch/asm/unistd_64.h", "s390x": "s390/asm/unistd_64.h", "s390": "s390/asm/unistd_32.h",
    "ppc64": "powerpc/asm/unistd_64.h", "ppc": "powerpc/asm/unistd_32.h", "mips": "mips/asm/unistd_o32.h",
    "mips64": "mips/asm/unistd_n64.h", "mips64n32": "mips/asm/unistd_n32.h",
}
BASES = {"__X32_SYSCALL_BIT": 0, "__NR_SYSCALL_BASE": 0, "__NR_Linux": None}
MIPS = {"mips": 4000, "mips64": 5000, "mips64n32": 6000}
# arch/arm/include/uapi/asm/unistd.h has them beside the table, at __ARM_NR_BASE.
ARM_PRIVATE = {"breakpoint": 0xF0001, "cacheflush": 0xF0002, "usr26": 0xF0003, "usr32": 0xF0004,
               "set_tls": 0xF0005, "get_tls": 0xF0006}
# Numbers that tables carry for holes, not calls.
HOLE = re.compile(r"(reserved|unused)\d+$|^syscalls$|^Linux$")


def read(arch, path):
    calls = {}
    for name, base, number in re.findall(r"#define __NR_(\w+)\s+\(?(?:(\w+)\s*\+\s*)?(\d+)\)?", path.read_text()):
        if not HOLE.search(name) and (not base or base in BASES):
            calls[name] = int(number) + (MIPS[arch] if base == "__NR_Linux" else 0)
    return calls


def main():
    tables = {}
    for arch, header in HEADERS.items():
        found = [pathlib.Path(tree) / header for tree in sys.argv[1:]]
        tables[arch] = next(read(arch, path) for path in found if path.exists())
    for arch, calls in tables.items():
        assert len(calls) > 200 and max(calls.values()) < 0xF000, arch
    tables["arm"].update(ARM_PRIVATE)
    print("\t".join(["name", *tables]))
    for name in sorted({name for calls in tables.values() for name in calls}):
        print("\t".join([name, *(str(calls.get(name, "-")) for calls in tables.values())]))


main()
