"""From what a run made and what was measured with it to one folder that is exactly the Hub repository."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hf_l3rs.errors import ArtifactError
from hf_l3rs.files import PathLike, write_files
from hf_l3rs.hub.artifact import CONFIG_NAME, L3RS_NAME, PICTURE_NAME, RESULTS_NAME, load_network
from hf_l3rs.hub.pretrained import L3RSArtifact
from hf_l3rs.hub.provenance import HUB_ID
from hf_l3rs.hub.results import OPTIMIZER_NAME, Result, Results, read_results, read_results_of, write_results


# What was seen over a run; two sentences for the card.
BEHAVIOUR_NAME = "behaviour.json"


def write_release(artifact: L3RSArtifact, folder: PathLike, files: Iterable[PathLike]) -> None:
    """
    Puts an L3RS and what was measured with it into one folder, whose name the card takes. What a person wrote into a
    card there is kept.

    Args:
        artifact ([`~hf_l3rs.L3RSArtifact`]): The L3RS.
        folder (`str` or `os.PathLike`): Of the release; made if absent.
        files (`Iterable`):
            Of results; of these the L3RS's own enter, not those of others beside it. The picture beside the first of
            them that has one goes with it.

    Raises:
        ArtifactError: If a file cannot be read, or was measured with other meta-weights.
        StorageError: If the folder cannot be written.
    """
    fingerprint = artifact.network.fingerprint()
    files = list(files)
    results = read_measured(fingerprint, files)
    _write_measured(Path(folder), results, files)
    name = Path(folder).resolve().name
    artifact.save_pretrained(folder, repo_id=name if HUB_ID.fullmatch(name) else None)


def gather_release(folder: Path, more: Sequence[PathLike] = ()) -> Path:
    """
    Brings a release together: the L3RS of a folder, and all results of its meta-weights that are found with it.

    Args:
        folder (`Path`):
            An L3RS, or the output folder of a meta-training or an evaluation. In such a folder, and in those in it,
            results are looked for; those of other meta-weights are left out, with a warning.
        more (`Sequence`, *optional*): Further results: files, or output folders of evaluations.

    Returns:
        `Path`: The folder of the L3RS, which holds the results now, and a card that shows them.

    Raises:
        ArtifactError: If there is no readable L3RS or file of results, or `more` has some of other meta-weights.
        StorageError: If the folder of the L3RS cannot be written.
    """
    is_run = not (folder / CONFIG_NAME).exists() and (folder / L3RS_NAME).is_dir()
    home = folder / L3RS_NAME if is_run else folder
    if not is_run and not more:  # as it was saved, which is checked when it is pushed
        return home
    network = load_network(home)
    fingerprint = network.fingerprint()
    files = [file for file in _results_in(folder) if file.parent != home] if is_run else []
    found = {file: read_results_of(fingerprint, file) for file in (home / RESULTS_NAME, *files)}
    found.update({file: _read_own(file, fingerprint) for file in map(_file_of, more)})
    used = [file for file, results in found.items() if results is not None and file.parent != home]
    _write_measured(home, merge_results(fingerprint, found.values()), used)
    L3RSArtifact(network).save_pretrained(home)
    return home


def read_measured(fingerprint: str, files: Iterable[PathLike]) -> Results | None:
    """
    Reads and joins results of the same meta-weights; see [`merge_results`].

    Raises:
        ArtifactError: If a file cannot be read, or was measured with other meta-weights.
    """
    return merge_results(fingerprint, [_read_own(file, fingerprint) for file in files])


def merge_results(fingerprint: str, parts: Iterable[Results | None]) -> Results | None:
    """
    Joins results of the same meta-weights: the L3RS's own entries, each measurement once and as measured last.

    Returns:
        [`~hf_l3rs.hub.results.Results`] or `None`: `None` if there is nothing to tell.
    """
    entries: dict[tuple[object, ...], Result] = {}
    behaviour = None
    for results in parts:
        if results is None:
            continue
        behaviour = results.behaviour or behaviour
        for entry in results.entries:
            if entry.optimizer == OPTIMIZER_NAME:
                where = (entry.setting, entry.shown_dataset, entry.split, entry.num_training_steps)
                entries[where] = entry
    return Results(fingerprint, tuple(entries.values()), behaviour) if entries or behaviour else None


def _write_measured(home: Path, results: Results | None, files: Iterable[PathLike]) -> None:
    """Puts results, and the picture beside the first file of them that has one, to an L3RS."""
    if results is not None:
        write_results(results, home / RESULTS_NAME)
    pictures = [picture for file in files if (picture := Path(file).with_name(PICTURE_NAME)).is_file()]
    if pictures:
        write_files(home, {PICTURE_NAME: pictures[0].read_bytes()})


def _results_in(folder: Path) -> Iterator[Path]:
    for pattern in ("", "*/"):
        for name in (RESULTS_NAME, BEHAVIOUR_NAME):
            yield from sorted(folder.glob(f"{pattern}{name}"))


def _file_of(path: PathLike) -> Path:
    return Path(path, RESULTS_NAME) if os.path.isdir(path) else Path(path)


def _read_own(file: PathLike, fingerprint: str) -> Results:
    results = read_results(file)
    if results.fingerprint != fingerprint:
        raise ArtifactError(
            f"{file} was measured with other meta-weights ({results.fingerprint}) than those of this L3RS "
            f"({fingerprint}); measure these with hf-l3rs evaluate, or leave the file out."
        )
    return results
