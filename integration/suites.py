"""Runs a command on a terminal of its own: suites.py SECONDS COMMAND...

What it prints is printed. The exit code is the command's, or 124 if it was killed for having said nothing for that long.
"""

import os
import pty
import select
import signal
import sys

seconds, command = float(sys.argv[1]), sys.argv[2:]
process, terminal = pty.fork()
if process == 0:
    os.execvp(command[0], command)
code = None
while True:
    if not select.select([terminal], [], [], seconds)[0]:
        os.kill(process, signal.SIGKILL)
        code = 124
        break
    try:
        said = os.read(terminal, 65536)
    except OSError:
        # EIO: nobody has the terminal open any more.
        said = b""
    if not said:
        break
    sys.stdout.buffer.write(said.replace(b"\r\n", b"\n"))
    sys.stdout.buffer.flush()
status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
sys.exit(status if code is None else code)
