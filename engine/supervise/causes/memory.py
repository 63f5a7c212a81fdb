"""Too little of something: memory of devices and host, shared memory, disk, handles."""

from .rule import Rule, any_of

RULES = (
    Rule(
        cause="device_oom",
        pattern=any_of(
            r"\b(CUDA|NPU|HIP|XPU|MPS backend)\b.{0,20}out of memory",
            r"OutOfMemoryError",
            r"CUBLAS_STATUS_ALLOC_FAILED",
            r"CUDNN_STATUS_ALLOC_FAILED",
            r"NCCL WARN Cuda failure.{0,10}out of memory",
            ignore_case=True,
        ),
        message="a device ran out of memory",
        advice="halve the micro batch (the global batch stays) or turn on gradient checkpointing",
        source="torch 2.13, c10/cuda/CUDACachingAllocator.cpp, CUDABlas.cpp; torch_npu; MPSAllocator.mm",
        command="ftwiz resume {run} --replan",
    ),
    Rule(
        cause="locked_memory",
        pattern=any_of(r"ibv_(reg_mr|create_cq|create_qp)\S* failed", r"Call to ibv_\w+ failed"),
        message="the network adapter may not lock enough memory",
        advice="raise the limit of locked memory: ulimit -l unlimited (LimitMEMLOCK in the scheduler's unit)",
        source="NCCL 2.27, misc/ibvwrap.cc",
    ),
    Rule(
        cause="shared_memory_full",
        pattern=any_of(
            r"out of shared memory",
            r"unable to (open|allocate|write to) shared memory",
            r"insufficient shared memory",
            r"Fatal Python error: Bus error",
            r"NCCL WARN Error while creating shared memory segment",
        ),
        message="shared memory (/dev/shm) is full",
        advice="give the container more /dev/shm: docker run --shm-size=8g, or --ipc=host",
        source="torch 2.13, utils/data/_utils/signal_handling.py; NCCL 2.27, misc/shmutils.cc; a write to a "
        "mapping that the disk has no room for ends with SIGBUS",
    ),
    Rule(
        cause="host_oom",
        pattern=any_of(
            r"DefaultCPUAllocator: (can't|not enough)",
            r"^MemoryError",
            r"Cannot allocate memory",
            r"std::bad_alloc",
            r"oom[-_]kill event",
            r"Out of memory: Killed process",
            r"Memory cgroup out of memory",
        ),
        message="the host ran out of memory",
        advice="use fewer ranks or a smaller micro batch, or raise the memory limit of the job or container",
        source="torch 2.13, c10/core/impl/alloc_cpu.cpp; errno ENOMEM; slurmstepd; Linux, mm/oom_kill.c",
        command="ftwiz resume {run} --replan",
    ),
    Rule(
        cause="disk_full",
        pattern=any_of(
            r"No space left on device",
            r"Errno 28\b",
            r"Disk quota exceeded",
            r"Errno 122\b",
            r"Errno 27\b",
            r"File too large",
            r"inline_container\.cc:\d+\] \. (unexpected pos|PytorchStreamWriter failed)",
            r"PytorchStreamWriter failed writing file",
        ),
        message="the disk is full",
        advice="free space or lower train.save_total_limit, then resume",
        source="errno ENOSPC, EDQUOT, EFBIG; torch 2.13, caffe2/serialize/inline_container.cc: torch.save "
        "does not say why it could not write",
    ),
    Rule(
        cause="files_limit",
        pattern=any_of(r"Too many open files", r"Errno 24\b", r"received 0 items of ancdata"),
        message="a rank may not open more files",
        advice="raise the limit of open files (ulimit -n 65536), or use fewer data workers",
        source="errno EMFILE; torch 2.13, multiprocessing: file descriptors are sent between processes",
    ),
    Rule(
        cause="process_limit",
        pattern=any_of(
            r"can't start new thread",
            r"pthread_create failed",
            r"Resource temporarily unavailable",
            r"libgomp: Thread creation failed",
        ),
        message="the user may not start more processes or threads",
        advice="raise the limit (ulimit -u, pids.max of the container), or use fewer ranks and data workers",
        source="errno EAGAIN of fork and pthread_create; libgomp, team.c",
    ),
)
