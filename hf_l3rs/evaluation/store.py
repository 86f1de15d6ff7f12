"""A table of rows on disk that outlives the processes that measure them."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hf_l3rs.errors import CheckpointError
from hf_l3rs.evaluation.manifest import MANIFEST_NAME, differences, plain, read_manifest, write_manifest
from hf_l3rs.evaluation.rows import Row, Run, RunKey, read_rows, to_csv, write_rows
from hf_l3rs.files import append_line, write_files


class RowStore:
    """
    A CSV of rows that is safe against interruptions and against other settings.

    While it is being measured, each process appends the rows of each run that it finishes to a file of its own in a
    folder beside the table; the finished table replaces that folder. `manifest.json` says what the rows were measured
    with, and nothing is ever added to, or taken from, rows that were measured with something else.

    Args:
        file (`str` or `os.PathLike`): The table, such as `OUTPUT_DIR/rows.csv`.
        settings (`Mapping`):
            What the rows depend on beside their columns and the optimizer's identity, as of
            [`~hf_l3rs.evaluation.manifest.measurement_settings`].
        shared (`bool`, *optional*, defaults to `False`):
            Whether several comparisons use the table, so that it may hold, and keeps, runs that one of them does not
            ask for. Otherwise such runs are refused: what is in the table is what is reported.
        remedy (`str`, *optional*, defaults to `"name another folder"`): Ends messages that refuse other settings.
    """

    def __init__(
        self,
        file: str | os.PathLike[str],
        settings: Mapping[str, Any],
        shared: bool = False,
        remedy: str = "name another folder",
    ) -> None:
        self.file = Path(file)
        self.settings = plain(settings)
        self.shared, self.remedy = shared, remedy
        self.parts = self.file.with_name(f"{self.file.stem}.parts")
        self._part = f"{uuid.uuid4().hex}.csv"  # never one that a killed process left, with half a line at its end

    def check(self, identities: Mapping[str, Any], without: Collection[str] = ()) -> None:
        """
        Makes sure that rows that are there already were measured with these settings and optimizers.

        Args:
            identities (`Mapping`): Names of optimizers to their identities.
            without (`Collection[str]`, *optional*): Names of settings that are not known yet.

        Raises:
            CheckpointError: If they were not, with what differs, or if nobody knows.
        """
        if not self._has_rows():
            return
        section = read_manifest(self.file.parent).get(self.file.name)
        if section is None:
            raise CheckpointError(
                f"{self.file} has no entry in a {MANIFEST_NAME} beside it, so what it was measured with is unknown; "
                f"move it away, or {self.remedy}."
            )
        known = section["optimizers"]
        before, after = (
            {name: value for name, value in settings.items() if name not in without}
            for settings in (section["settings"], self.settings)
        )
        changed = differences(before, after) + differences(
            {name: known[name]["identity"] for name in known if name in identities},
            {name: plain(identities[name]) for name in identities if name in known},
        )
        if changed:
            more = f"; and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise CheckpointError(
                f"{self.file} was measured with other settings ({'; '.join(changed[:3])}{more}); restore them, or "
                f"{self.remedy}."
            )

    def open(self, runs: Sequence[Run]) -> list[Row]:
        """
        Prepares the store for runs; on one process, before the others append.

        Args:
            runs (`Sequence[Run]`): What is going to be measured.

        Returns:
            `list[Row]`: Of the runs that are finished already, also of those that are not asked for.

        Raises:
            CheckpointError: As [`~RowStore.check`], or if the table holds runs that are not asked for.
            DataError: If it cannot be read.
            StorageError: If the folder cannot be written.
        """
        self.check({run.contender.name: run.contender.identity for run in runs})
        rows = self._read()
        surplus = {row.run for row in rows} - {run.key for run in runs}
        if surplus and not self.shared:
            name, _, task, steps = min(surplus, key=str)
            raise CheckpointError(
                f"{self.file} holds {len(surplus)} runs that are not asked for, such as {name} on task {task} for "
                f"{steps} steps; ask for them, or {self.remedy}."
            )
        write_manifest(self.file.parent, self.file.name, self._section(runs))
        return rows

    def append(self, rows: Iterable[Row]) -> None:
        """Adds the rows of one finished run, at once and durably. Each process may call it."""
        if not (self.parts / self._part).exists():
            write_files(self.parts, {self._part: to_csv([]).encode()})
        append_line(self.parts / self._part, to_csv(rows, header=False).removesuffix("\n"))

    def close(self, rows: Sequence[Row]) -> None:
        """Writes the finished table, in this order, and then what else a shared one holds; on one process."""
        wanted = {row.run for row in rows}
        others = [row for row in self._read() if row.run not in wanted]
        if self.parts.exists() or not self.file.exists():
            write_rows([*rows, *others], self.file)
            shutil.rmtree(self.parts, ignore_errors=True)

    def _has_rows(self) -> bool:
        return self.file.exists() or self.parts.exists()

    def _read(self) -> list[Row]:
        """The rows of finished runs, each once, from the table and from what was appended since."""
        rows = read_rows(self.file) if self.file.exists() else []
        for part in sorted(self.parts.glob("*.csv")):
            rows += read_rows(part, whole=False)
        runs: dict[RunKey, dict[int, Row]] = {}
        for row in rows:
            runs.setdefault(row.run, {})[row.step] = row
        return [
            row for steps in runs.values() if any(row.is_final for row in steps.values()) for row in steps.values()
        ]

    def _section(self, runs: Sequence[Run]) -> dict[str, Any]:
        """What the manifest says of the table."""
        grows = self.shared and self._has_rows()
        old = read_manifest(self.file.parent)[self.file.name] if grows else {}
        optimizers = dict(old.get("optimizers", {}))
        for contender in {run.contender.name: run.contender for run in runs}.values():
            rates = {run.contender.learning_rate for run in runs if run.contender.name == contender.name}
            rates |= set(optimizers.get(contender.name, {}).get("learning_rates", ()))
            optimizers[contender.name] = {
                "identity": plain(contender.identity),
                "learning_rates": sorted(rate for rate in rates if rate is not None),
            }
        return {
            "settings": self.settings,
            "optimizers": optimizers,
            "horizons": sorted({run.num_training_steps for run in runs} | set(old.get("horizons", ()))),
            "num_tasks": max(len({run.task for run in runs}), old.get("num_tasks", 0)),
        }
