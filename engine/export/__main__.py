"""``python -m ftwiz.engine.export export|push``: reads a wish as JSON, tells how it goes in JSON lines.

Only those lines go to the standard output; whatever libraries print goes to the standard error.
"""

import json
import os
import sys
from typing import IO, Any

from ..errors import FtwizError, Refused
from .wanted import Wanted


def main() -> int:
    """Do what is asked for on stdin and answer on stdout."""
    with os.fdopen(os.dup(1), "w", encoding="utf8", buffering=1) as channel:
        os.dup2(2, 1)
        try:
            result = _do(sys.argv[1], json.loads(sys.stdin.read()), channel)
        except FtwizError as error:
            _tell(channel, error=error.message, hint=error.hint, code=int(error.exit_code))
            return error.exit_code
        except OSError as error:
            refused = Refused(f"{error.filename or 'the disk'}: {error.strerror or error}")
            _tell(channel, error=refused.message, hint="nothing was written", code=int(refused.exit_code))
            return refused.exit_code
        _tell(channel, result=result)
    return 0


def _do(what: str, body: dict[str, Any], channel: IO[str]) -> dict[str, Any]:
    def narrate(text: str) -> None:
        _tell(channel, say=text)

    if what == "push":
        from .hub import upload

        narrate(f"uploading to {body['repository']}")
        return {"url": upload(body["folder"], body["repository"])}
    from .build import build

    return build(Wanted(**body), narrate)


def _tell(channel: IO[str], **said: Any) -> None:
    channel.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    sys.exit(main())
