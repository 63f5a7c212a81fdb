"""Devices, their drivers and what was built for them."""

from .rule import Rule, any_of

RULES = (
    Rule(
        cause="device_failed",
        pattern=any_of(
            r"NVRM: Xid",
            r"\bXid\b.{0,30}\b\d+\b",
            r"uncorrectable (ECC|NVLink)",
            r"fallen off the bus",
            r"GPU is lost",
            r"CUDA error: (unknown error|hardware stack error)",
            r"Unable to determine the device handle for GPU",
            r"HBM.{0,30}(multi|double)[- ]bit",
        ),
        message="a device failed",
        advice="look for its Xid in dmesg; the device may have to be reset, or taken out of use",
        source="NVIDIA, Xid Errors, r575; CUDA runtime error strings; Linux, dmesg",
    ),
    Rule(
        cause="driver_version",
        pattern=any_of(
            r"driver version is insufficient",
            r"NVIDIA driver on your system is too old",
            r"Driver/library version mismatch",
            r"forward compatibility was attempted on non supported HW",
            r"driver shutting down",
        ),
        message="the device's driver does not fit the installed torch",
        advice="update the driver, or install the torch that is built for it: ftwiz doctor says which",
        source="CUDA runtime error strings; torch 2.13, c10/cuda/CUDAFunctions.cpp; NVML",
        command="ftwiz doctor",
    ),
    Rule(
        cause="no_device",
        pattern=any_of(
            r"No CUDA GPUs are available",
            r"no CUDA-capable device",
            r"not compiled with CUDA enabled",
            r"Found no NVIDIA driver",
            r"invalid device ordinal",
            r"No NPU(s)? (are|is) available",
            r"not linked with support for (cuda|xpu|mps|npu) devices",
        ),
        message="torch sees no device",
        advice="this build of torch may be one for CPUs, or CUDA_VISIBLE_DEVICES hides the devices",
        source="torch 2.13, torch/cuda/__init__.py; CUDA runtime error strings",
        command="ftwiz doctor",
    ),
    Rule(
        cause="kernel_missing",
        pattern=any_of(
            r"no kernel image is available",
            r"is not compatible with the current PyTorch installation",
            r"device kernel image is invalid",
            r"invalid device function",
        ),
        message="the installed torch was not built for this device",
        advice="install a build of torch for its architecture: ftwiz doctor",
        source="CUDA runtime error strings; torch 2.13, torch/cuda/__init__.py",
        command="ftwiz doctor",
    ),
    Rule(
        cause="token_range",
        pattern=any_of(
            r"srcIndex < srcSelectDimSize",
            r"index out of range in self",
            r"indexSelect(Large|Small)Index.*Assertion",
            r"Assertion `t >= 0 && t < n_classes` failed",
            r"vectorized_gather_kernel.*index out of bounds",
        ),
        message="a token id lies beyond the model's vocabulary",
        advice="tokenizer and model do not belong together, or tokens were added without resizing it",
        source="torch 2.13, ATen/native/cuda/Indexing.cu, NLLLoss.cu; ATen/native/Embedding.cpp",
    ),
    Rule(
        cause="device_memory_access",
        pattern=any_of(
            r"illegal memory access",
            r"misaligned address",
            r"device-side assert triggered",
            r"CUBLAS_STATUS_EXECUTION_FAILED",
        ),
        message="a kernel failed on the device",
        advice="resume once; if it comes back, try plan.mixed_precision bf16 and no fused kernels",
        source="CUDA runtime error strings",
    ),
)
