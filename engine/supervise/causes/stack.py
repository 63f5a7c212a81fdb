"""The installed libraries, and what they compile."""

from .rule import Rule, any_of

INSTALL = "python -m pip install 'ftwiz[train]'"
RULES = (
    Rule(
        cause="build_failed",
        pattern=any_of(
            r"Error building extension",
            r"ninja: build stopped: subcommand failed",
            r"Ninja is required to load C\+\+ extensions",
            r"CUDAMismatchException",
            r"Unable to JIT load the \w+ op",
            r"CUDA_HOME (does not exist|environment variable is not set)",
            r"Failed to find C compiler",
        ),
        message="an operator of the stack could not be built",
        advice="a compiler, ninja, or CUDA's toolkit in the version of torch is missing: ftwiz doctor",
        source="torch 2.13, utils/cpp_extension.py; DeepSpeed 0.19.8, ops/op_builder/builder.py; triton",
        command="ftwiz doctor",
    ),
    Rule(
        cause="build_lock",
        pattern=any_of(r"Waited on lock file", r"dead build left its lock"),
        message="a build that died has left its lock, and everybody waits for it",
        advice="remove the lock file that is named; ftwiz doctor finds it",
        source="torch 2.13, utils/file_baton.py",
        command="ftwiz doctor",
    ),
    Rule(
        cause="attention_missing",
        pattern=any_of(
            r"FlashAttention\d? has been toggled on, but it cannot be used",
            r"flash_attn.{0,40}(not installed|seems to be not)",
        ),
        message="flash attention was asked for and is not installed",
        advice="install flash-attn, or take attn_implementation out: torch's own attention is as exact",
        source="transformers 5.23, modeling_utils.py",
    ),
    Rule(
        cause="stack_missing",
        pattern=any_of(
            r"ModuleNotFoundError: No module named "
            r"'(torch|transformers|trl|peft|accelerate|datasets|tokenizers|deepspeed|bitsandbytes)\b"
        ),
        message="the training stack is not installed",
        advice="install it",
        source="Python's import",
        command=INSTALL,
    ),
    Rule(
        cause="library_missing",
        pattern=any_of(
            r"lib\S+\.so[.\d]*: cannot open shared object file",
            r"version `GLIBC(XX)?_[\d.]+' not found",
            r"CUDA Setup failed",
        ),
        message="a shared library is missing",
        advice="it comes with the driver, the toolkit or the system: ftwiz doctor says what is there",
        source="ld.so; bitsandbytes, cextension.py",
        command="ftwiz doctor",
    ),
    Rule(
        cause="stack_version",
        pattern=any_of(
            r"ImportError: (cannot import name|.*undefined symbol)",
            r"undefined symbol: ",
            r"^ModuleNotFoundError",
            r"is required for a normal functioning",
            r"ImportError: \S+[<>=]=\S+ is required",
            r"numpy\.dtype size changed",
            r"operator torchvision::\w+ does not exist",
            r"Mismatched NCCL version",
            r"A module that was compiled using NumPy 1\.x",
        ),
        message="packages of the training stack do not fit together",
        advice="install the versions that ftwiz was tested with",
        source="Python's import; transformers 5.23, utils/versions.py; NumPy; NCCL",
        command=INSTALL,
    ),
    Rule(
        cause="arguments",
        pattern=any_of(
            r"the trainer refuses its arguments",
            r"has no trainer argument",
            r"Config\.__init__\(\) got an unexpected keyword argument",
            r"is not a valid \w+(Strategy|Type|Names|Level), please select one of",
            r"Check batch related parameters",
        ),
        message="the trainer refuses its arguments",
        advice="mend train.extra, or the number of the batch that is named",
        source="ftwiz's worker; trl 1.16; transformers 5.23, utils/generic.py; DeepSpeed 0.19.8",
    ),
)
