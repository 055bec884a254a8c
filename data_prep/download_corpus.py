r"""Downloads the files of a corpus from the Hugging Face hub.

    python -m data_prep.download_corpus --corpus=fineweb-2 --output=corpus --max_files=2
    python -m data_prep.download_corpus --repo=OWNER/NAME --files='es/*.parquet' --output=corpus

FineWeb-2 and HPLT are open. OSCAR and CulturaX are gated: accept their terms on the hub, then put a
token into the environment variable HF_TOKEN (or log in with the hub's own command). A broken connection
is continued where it ended. After a stop, run the same command again: complete files are not downloaded
twice, only the unfinished one is. Needs requirements-hub.txt.
"""

import fnmatch
import logging
import os
import pathlib
import time
from collections.abc import Sequence

from absl import flags

from data_prep.command_line import prepare_tool
from data_prep.progress import Progress
from electra_es.errors import UsageError, import_optional, nearest_hint, run_main
from electra_es.flags import define, parse_flags_only, refuse_flags
from electra_es.settings import NAME, PATH, REPOSITORY, Range

# Of those below, what anyone can download without a login.
OPEN = ("fineweb-2", "hplt-2")
_OPEN_ONES = f"; open to all: {', '.join(f'--corpus={name}' for name in OPEN)}"
# Name -> (repository, files of the Spanish part).
CORPORA = {
    "fineweb-2": ("HuggingFaceFW/fineweb-2", "data/spa_Latn/train/*.parquet"),
    "hplt-2": ("HPLT/HPLT2.0_cleaned", "spa_Latn/*.parquet"),
    "culturax": ("uonlp/CulturaX", "es/*.parquet"),
    "oscar-2109": ("oscar-corpus/OSCAR-2109", "packaged/es/*.txt.gz"),
    "oscar-2201": ("oscar-corpus/OSCAR-2201", "compressed/es_meta/*.jsonl.gz"),
    "oscar-2301": ("oscar-corpus/OSCAR-2301", "es_meta/*.jsonl.zst"),
}


def download_corpus(repo: str, pattern: str, output: str, *, revision: str = "main",
                    max_files: int = 0) -> list[str]:
    """Downloads the files of a data set repository that match `pattern` into `output`.

    Args:
      repo: OWNER/NAME on the hub (environment variable HF_ENDPOINT: another hub).
      pattern: glob over paths in the repository.
      max_files: only this number of files, in order of names; 0: all.

    Returns:
      Local paths, in order of names.

    Raises:
      UsageError: no such repository or revision, a gated one without a token, no file that matches,
        or a broken connection.
    """
    huggingface_hub = import_optional("huggingface_hub", "requirements-hub.txt")
    errors = import_optional("huggingface_hub.errors", "requirements-hub.txt")
    # It has its own handler; with the handler of this project every retry would be logged twice.
    logging.getLogger("huggingface_hub").propagate = False
    for name in ("httpx", "httpx2"):  # they log every request
        logging.getLogger(name).setLevel(logging.WARNING)
    where = f"{repo} at revision {revision}"
    try:
        api = huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))
        sizes = {entry.path: entry.size for entry in api.list_repo_tree(
            repo, repo_type="dataset", revision=revision, recursive=True) if hasattr(entry, "size")}
        names = sorted(fnmatch.filter(sizes, pattern))[:max_files or None]
        if not names:
            raise UsageError(f"{where}: no file matches --files={pattern}")
        _remove_left_over(output)
        received = _Received([sizes[name] for name in names])
        paths = []
        for name in names:
            paths.append(api.hf_hub_download(repo, name, repo_type="dataset", revision=revision,
                                             local_dir=output, tqdm_class=received.bar()))
            received.end_file(sizes[name])
        return paths
    except errors.GatedRepoError:
        raise UsageError(f"{where}: gated: accept its terms on the hub and set HF_TOKEN to a token "
                         f"of that account{_OPEN_ONES}") from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{repo}: has no revision {revision}") from None
    except errors.RepositoryNotFoundError:
        raise UsageError(f"{repo}: no such data set, or a private one and no HF_TOKEN"
                         f"{_OPEN_ONES}") from None
    except UsageError:
        raise
    except Exception as error:  # Of whichever HTTP library the hub's package uses.
        reason = str(error).strip().splitlines()
        if getattr(getattr(error, "response", None), "status_code", 0) in (401, 403):
            raise UsageError(f"{where}: closed to this account: {reason[0] if reason else 'no access'}"
                             f"{_OPEN_ONES}") from None
        raise UsageError(f"{where}: {reason[0] if reason else type(error).__name__}; the same "
                         "command goes on from here") from None


class _Received:
    """Counts the bytes of all files as they arrive, for the line of progress."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._progress = Progress("files", sizes)
        self._of_file = 0
        logging.info("%d files, %.1f MB", len(sizes), sum(sizes) / 1e6)

    def bar(self) -> type:
        """What the hub's package takes for a class of progress bars."""
        received = self

        class Bar(import_optional("tqdm.auto", "requirements-hub.txt").tqdm):  # type: ignore[misc]
            def __init__(self, *args: object, **settings: object) -> None:
                super().__init__(disable=True)

            def update(self, n: float | None = 1) -> None:
                received.add(int(n or 0))

            # With these, a download from the hub's store of chunks has one bar: for what arrives in the
            # file. A second one would be for what goes over the network, which is less.
            def update_transfer(self, n: float) -> None:
                pass

            def set_transfer_postfix_str(self, *args: object, **settings: object) -> None:
                pass

        return Bar

    def add(self, number: int) -> None:
        self._of_file += number
        self._progress.add(number, parts=0)

    def end_file(self, size: int) -> None:
        if self._of_file:
            self._progress.add(size - self._of_file)
        else:
            self._progress.leave_out(size)  # it was there already
        self._of_file = 0


def _remove_left_over(output: str) -> None:
    """Removes unfinished files of killed downloads, which the library does not continue.

    Files that changed in the last hour may belong to another download into the same directory.
    """
    for path in pathlib.Path(output).glob(".cache/huggingface/download/**/*.incomplete"):
        if time.time() - path.stat().st_mtime > 3600:
            path.unlink()


def main() -> None:
    define("corpus", str, None, f"One of {', '.join(CORPORA)}.", NAME)
    define("repo", str, None, "Any data set repository, OWNER/NAME, with --files.", REPOSITORY)
    define("files", str, None, "Glob over paths in the repository.", PATH)
    define("output", str, None, "Directory for the files.", PATH)
    define("revision", str, "main", "Branch, tag or commit.", NAME)
    define("max_files", int, 0, "Only this number of files, in order of names; 0: all.",
           Range(low=0, high=1_000_000, why="no repository has more"))
    prepare_tool()
    parse_flags_only()
    values = flags.FLAGS
    if values.corpus:
        refuse_flags(f"--corpus={values.corpus}", ("repo",))
    if not values.output or not (values.corpus or (values.repo and values.files)):
        raise UsageError("expected --output and either --corpus or --repo with --files")
    if values.corpus and values.corpus not in CORPORA:
        raise UsageError(f"corpus={values.corpus}: expected one of {', '.join(CORPORA)}"
                         f"{nearest_hint(values.corpus, CORPORA)}")
    repo, pattern = CORPORA[values.corpus] if values.corpus else (values.repo, values.files)
    paths = download_corpus(repo, values.files or pattern, values.output,
                            revision=values.revision, max_files=values.max_files)
    size = sum(os.path.getsize(path) for path in paths)
    print(f"{values.output}: {len(paths)} files of {repo}, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    run_main(main)
