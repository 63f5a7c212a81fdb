"""Uploads an exported folder to the Hugging Face hub. The token comes from the environment, HF_TOKEN."""

from ..errors import Refused


def upload(folder: str, repository: str) -> str:
    """Make a private repository when there is none, upload all files, and return its address.

    Raises:
        Refused: The hub cannot be reached or refuses.
    """
    from huggingface_hub import HfApi

    try:
        hub = HfApi()
        address = str(hub.create_repo(repository, private=True, exist_ok=True))
        hub.upload_folder(folder_path=folder, repo_id=repository)
    except Exception as error:  # whatever keeps it off, the folder is there and can be uploaded later
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:240]
        raise Refused(
            f"{repository}: cannot be uploaded: {reason}",
            hint=f"the export itself is there; later: hf upload {repository} {folder}",
        ) from error
    return address
