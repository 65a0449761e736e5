"""Writes cassettes with a first line that tells where they came from."""

import datetime as dt
from pathlib import Path
from urllib.parse import urlsplit

from vcr.persisters.filesystem import FilesystemPersister
from vcr.serialize import serialize


class WithProvenance(FilesystemPersister):
    """VCR's own files, with a comment above: `emulator`, or `live` and the day."""

    @staticmethod
    def save_cassette(cassette_path, cassette_dict, serializer):
        hosts = {urlsplit(request.uri).hostname for request in cassette_dict["requests"]}
        today = dt.datetime.now(dt.UTC).date()
        provenance = "emulator" if hosts == {"127.0.0.1"} else f"live {today}"
        path = Path(cassette_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# provenance: {provenance}\n{serialize(cassette_dict, serializer)}")
