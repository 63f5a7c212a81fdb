"""Ranks that do not meet or lose each other: mostly what follows from another cause, so the last rules."""

from .rule import Rule, any_of

RULES = (
    Rule(
        cause="plan_mismatch",
        pattern=any_of(r"is not what was planned", r"the launcher started \d+ ranks, and the plan is"),
        message="the ranks are not what was planned",
        advice="accelerate or the launcher did something else: see the log of the rank, and `ftwiz doctor`",
        source="ftwiz's worker",
    ),
    Rule(
        cause="port_in_use",
        pattern=any_of(r"EADDRINUSE", r"[Aa]ddress already in use"),
        message="another program took the port on which the ranks meet",
        advice="start again: a free port is chosen anew",
        source="errno EADDRINUSE; torch 2.13, TCPStore",
    ),
    Rule(
        cause="network",
        pattern=any_of(
            r"Name or service not known",
            r"Temporary failure in name resolution",
            r"nodename nor servname",
            r"No route to host",
            r"Connection refused",
            r"no socket interface found",
            r"The client socket has (timed out|failed to connect)",
            r"Unable to find address for",
        ),
        message="the ranks do not find each other's address",
        advice="check the host's name in /etc/hosts, and NCCL_SOCKET_IFNAME or GLOO_SOCKET_IFNAME: the "
        "address must be one that the others reach",
        source="torch 2.13, distributed/c10d/socket.cpp; gloo; NCCL 2.27, bootstrap.cc",
        is_consequence=True,
    ),
    Rule(
        cause="ranks_timeout",
        pattern=any_of(
            r"Watchdog caught collective operation timeout",
            r"Timed out (waiting|after)",
            r"wait timeout after \d+ ?ms",
            r"failed to pass monitoredBarrier",
            r"Application timeout caused pair closure",
            r"EI0002|EI0006|HCCL.{0,80}time(d )?out",
            r"Socket Timeout",
        ),
        message="the ranks waited too long for one of them",
        advice="it hung or was busy elsewhere while the others waited: see which rank's log says least, and "
        "when its last line is from",
        source="torch 2.13, ProcessGroupNCCL.cpp, ProcessGroupGloo.cpp, TCPStore.cpp; gloo; CANN 8, EI codes",
        is_consequence=True,
    ),
    Rule(
        cause="ranks_lost",
        pattern=any_of(
            r"[Cc]onnection closed by peer",
            r"Connection reset by peer",
            r"remote process exited or there was a network error",
            r"ncclRemoteError",
            r"NCCL.{0,40}unhandled (cuda|system) error",
            r"Broken pipe",
        ),
        message="ranks lost each other",
        advice="see which rank's log ended first: it went away, and the others noticed",
        source="torch 2.13, ProcessGroupNCCL.cpp; gloo, transport/tcp/pair.cc; NCCL",
        is_consequence=True,
    ),
)
