"""Plays a person at a terminal: terminal.py COMMAND... <<SCRIPT

Lines of the script: `see REGEX`, `type TEXT` (with return), `put TEXT` (without), `key LETTER` (control),
`size ROWS COLUMNS`, `ask TEXT = REGEX` (types until the answer is seen, for what takes a moment). The exit code is the command's.
"""

import sys
import time

import pexpect

terminal = pexpect.spawn(sys.argv[1], sys.argv[2:], timeout=20, encoding="utf-8", dimensions=(30, 100))
terminal.logfile_read = sys.stdout
for line in sys.stdin.read().splitlines():
    word, _, rest = line.strip().partition(" ")
    if word == "see":
        terminal.expect(rest)
    elif word == "type":
        terminal.sendline(rest)
    elif word == "put":
        terminal.send(rest)
    elif word == "key":
        # Engines that look for a sequence of keys may want each in a read of its own.
        time.sleep(0.3)
        terminal.sendcontrol(rest)
    elif word == "size":
        terminal.setwinsize(*map(int, rest.split()))
    elif word == "ask":
        text, _, answer = rest.partition(" = ")
        for _ in range(20):
            terminal.sendline(text)
            if terminal.expect([answer, pexpect.TIMEOUT], timeout=0.7) == 0:
                break
        else:
            sys.exit(f"no {answer}")
    elif word:
        sys.exit(f"unknown word: {word}")
terminal.expect(pexpect.EOF)
terminal.close()
print()
sys.exit(128 + terminal.signalstatus if terminal.exitstatus is None else terminal.exitstatus)
