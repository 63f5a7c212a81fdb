"""Models, tokenizers and the hub."""

from .rule import Rule, any_of

RULES = (
    Rule(
        cause="remote_code",
        pattern=any_of(
            r"contains custom code which must be executed",
            r"requires you to execute the \w+ file",
            r"trust_remote_code=True",
        ),
        message="the model comes with code of its own",
        advice="read that code, then set model.trust_remote_code: true; or take a model without",
        source="transformers 5.23, dynamic_module_utils.py",
    ),
    Rule(
        cause="model_gated",
        pattern=any_of(
            r"only to people who asked for it",
            r"GatedRepo",
            r"Cannot access gated repo",
            r"Access to model .{1,120} is restricted",
        ),
        message="the model is gated: its owner has to let you in",
        advice="ask for access on its page, then: huggingface-cli login",
        source="ftwiz's worker; huggingface_hub, errors.py",
    ),
    Rule(
        cause="hub_token",
        pattern=any_of(
            r"401 Client Error", r"Invalid (user token|credentials)", r"token .{0,40}(expired|is not valid)"
        ),
        message="the hub does not take the token",
        advice="make a new one and put it into HF_TOKEN, or: huggingface-cli login",
        source="huggingface_hub, utils/_http.py",
    ),
    Rule(
        cause="hub_busy",
        pattern=any_of(
            r"429 (Client Error|Too Many)",
            r"Too Many Requests",
            r"50[0234] (Server Error|Bad Gateway|Service)",
            r"Server error '50\d",
        ),
        message="the hub is busy",
        advice="try again later; with HF_TOKEN it allows more",
        source="huggingface_hub, utils/_http.py",
    ),
    Rule(
        cause="certificate",
        pattern=any_of(r"CERTIFICATE_VERIFY_FAILED", r"certificate verify failed"),
        message="a certificate on the way to the hub is not trusted",
        advice="behind a proxy that opens connections: name its certificates in SSL_CERT_FILE",
        source="Python's ssl",
    ),
    Rule(
        cause="model_unknown",
        pattern=any_of(
            r"does not recognize this architecture",
            r"Unrecognized model in",
            r"Unrecognized configuration class",
        ),
        message="the installed transformers does not know this model",
        advice="a newer transformers may know it; or config.json has a wrong model_type",
        source="transformers 5.23, models/auto",
    ),
    Rule(
        cause="weights_damaged",
        pattern=any_of(
            r"SafetensorError",
            r"HeaderTooLarge|InvalidHeader|MetadataIncompleteBuffer",
            r"invalid load key",
            r"failed finding central directory",
        ),
        message="a file of weights is damaged",
        advice="it was cut off or changed: download it again",
        source="safetensors 0.7; torch 2.13, serialization.py",
    ),
    Rule(
        cause="model_unreachable",
        pattern=any_of(
            r"the hub cannot be reached",
            r"neither a local folder nor a model on the hub",
            r"the hub has no such",
            r"OfflineModeIsEnabled",
            r"LocalEntryNotFoundError",
            r"RepositoryNotFoundError",
            r"couldn't connect to 'https?:",
            r"is not a local folder and is not a valid model identifier",
        ),
        message="the model cannot be found here nor downloaded",
        advice="check its name and the connection, or give a local folder as model.name_or_path",
        source="ftwiz's worker; transformers 5.23, utils/hub.py; huggingface_hub, errors.py",
    ),
    Rule(
        cause="chat_template",
        pattern=any_of(
            r"chat_template is not set",
            r"jinja2\.exceptions\.",
            r"Conversation roles must alternate",
            r"TemplateSyntaxError|UndefinedError: '\w+' is undefined",
            r"return_assistant_tokens_mask|\{% generation %\}",
        ),
        message="the chat template does not take these rows",
        advice="see what it makes of them with ftwiz data; give the model's tokenizer a chat template that "
        "fits, or put their roles into the order that it asks for",
        source="transformers 5.23, utils/chat_template_utils.py; jinja2",
    ),
    Rule(
        cause="checkpoint",
        pattern=any_of(r"not a whole checkpoint", r"Can't find a valid checkpoint at"),
        message="the checkpoint is not whole",
        advice="resume takes the newest whole one by itself",
        source="ftwiz's worker; transformers 5.23, trainer.py",
        command="ftwiz resume {run}",
    ),
    Rule(
        cause="model",
        pattern=any_of(
            r"\bthe (model|tokenizer) cannot be loaded\b", r"size mismatch for", r"`ignore_mismatched_sizes`"
        ),
        message="the model cannot be loaded",
        advice="check its folder: config.json, weights in .safetensors and tokenizer files",
        source="ftwiz's worker; transformers 5.23, modeling_utils.py",
    ),
    Rule(
        cause="data",
        pattern=any_of(
            r"DatasetGeneration\w*Error",
            r"JSONDecodeError",
            r"ArrowInvalid",
            r"UnicodeDecodeError",
            r"\.(jsonl|json|csv|parquet):\d+: ",
            r"CastError: Couldn't cast",
            r"train\.max_length \d+.*(cuts|leaves|nothing)",
        ),
        message="the data cannot be read",
        advice="mend the row that is named and start again",
        source="datasets, exceptions.py; pyarrow; ftwiz's data room",
    ),
    Rule(
        cause="nan",
        pattern=any_of(
            r"\b(loss|gradient|grad_norm)\b.{0,40}\b(is|became|are|contains?)\b.{0,12}\b(nan|inf|non-?finite)\b",
            r"Current loss scale already at minimum",
            ignore_case=True,
        ),
        message="the loss is no longer a number",
        advice="lower the learning rate, or train in bf16 instead of fp16",
        source="ftwiz's worker; DeepSpeed 0.19.8, runtime/fp16/loss_scaler.py",
    ),
)
