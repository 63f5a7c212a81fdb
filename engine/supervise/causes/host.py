"""What somebody else decided: schedulers, owners, mounts."""

from .rule import Rule, any_of

RULES = (
    Rule(
        cause="scheduler",
        pattern=any_of(
            r"slurmstepd: error: \*\*\* (JOB|STEP) \S+ ON \S+ CANCELLED AT .*DUE TO",
            r"CANCELLED AT \S+ \*\*\*",
            r"PBS: job killed: (walltime|mem)",
            r"TERM_(RUNLIMIT|MEMLIMIT|PREEMPT|OWNER)",
            r"job killed: walltime",
        ),
        message="the batch scheduler ended the job",
        advice="ask for more time, or for a signal before: --signal=USR1@300 saves and exits 75 (--requeue)",
        source="Slurm 24.05, slurmstepd/mgr.c; OpenPBS, resmom/mom_main.c; LSF, lsbatch.h",
    ),
    Rule(
        cause="read_only",
        pattern=any_of(r"Read-only file system", r"Errno 30\b"),
        message="a disk is mounted read-only",
        advice="mounted so on purpose, or after an error: see dmesg; choose another disk with FTWIZ_HOME",
        source="errno EROFS",
    ),
    Rule(
        cause="disk_failed",
        pattern=any_of(
            r"Stale file handle",
            r"Errno 116\b",
            r"\[Errno 5\]",
            r"Input/output error",
            r"Transport endpoint is not connected",
        ),
        message="a disk or its server failed",
        advice="see dmesg and the file server; then resume from the newest whole checkpoint",
        source="errno ESTALE, EIO, ENOTCONN",
    ),
    Rule(
        cause="permission",
        pattern=any_of(r"PermissionError", r"Errno 13\b", r"Permission denied"),
        message="a file may not be read or written",
        advice="see who is its owner and what its mode is; run as that user, or choose another folder",
        source="errno EACCES",
    ),
)
