"""What one command takes by itself: `python -I -S benchmarks/_own.py FILE DESCRIPTORS COMMAND…`.

The peak of memory that the system tells of a process begins with that of the one it was forked from. So a small one
stands between: this one, which loads next to nothing. It writes into FILE seconds of CPU, the peak in kB, and the exit
code, separated by blanks. DESCRIPTORS is the limit of them, 0: as many as may be had.
"""

import os
import resource
import sys

if __name__ == "__main__":
    told, wanted, *command = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(wanted) or hard, int(wanted) or hard))
    _, status, usage = os.wait4(os.spawnv(os.P_NOWAIT, command[0], command), 0)
    code = os.waitstatus_to_exitcode(status)
    found = f"{usage.ru_utime + usage.ru_stime} {usage.ru_maxrss} {code}"
    os.write(os.open(told, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), found.encode())
