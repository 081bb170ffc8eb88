"""Data sets of the Hugging Face Hub, or of a folder with such files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import MinLen

from sweep.core.errors import UserError, first_line
from sweep.core.reporter import Reporter
from sweep.datasets.file_parsing import Layout, endings, file_faults, format_of, label_name
from sweep.datasets.files import FileTable, digest
from sweep.datasets.tabular import Tables, Tabular

if TYPE_CHECKING:
    import datasets

_STATE = "state.json"  # in a folder that `save_to_disk` wrote


class HubTable:
    """A split of the `datasets` library. Numbered labels become names."""

    def __init__(self, split: datasets.Dataset, source: str):
        self.source = source
        self.columns = split.column_names
        self._split = split
        inner = {name: getattr(kind, "feature", kind) for name, kind in split.features.items()}  # also of lists
        classes = {name: kind for name, kind in inner.items() if type(kind).__name__ == "ClassLabel"}
        self.labels = {name: kind.names for name, kind in classes.items()}

    def __len__(self) -> int:
        return len(self._split)

    def column(self, name: str) -> list[Any]:
        return self._split[name][:]

    def rows(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        rows = self._split.select(indices).to_list()
        for column, names in self.labels.items():
            for row in rows:
                value = row[column]
                several = isinstance(value, list)
                row[column] = [label_name(one, names) for one in value] if several else label_name(value, names)
        return rows


@dataclass(frozen=True, kw_only=True)
class Hub(Tabular):
    """A data set of the Hub, or a folder for machines without a network.

    A folder has one file for each split (train.csv, or train-00000-of-00001.parquet as on the Hub), in itself, in
    `data/`, or in a folder with the configuration's name; or it was written by `datasets.save_to_disk`. If all splits
    are drawn from one, `path` may be a file.
    """

    path: Annotated[str, MinLen(1)]
    """Hub id, for example "nyu-mll/glue", or a folder with one file for each split."""
    name: str | None = None
    """Configuration of the data set, for example "mrpc"."""
    revision: str | None = None
    """Commit, branch or tag on the Hub."""
    train: str = "train"
    """Split of the training examples."""
    validation: str | None = None
    """Split of the validation examples; null takes a share of the training examples."""
    test: str | None = None
    """Split of the test examples, which only an export reads."""

    def faults(self) -> Iterator[tuple[str, str]]:
        yield from super().faults()
        folder = self._folder()
        if self._file() is not None:
            yield from (("path", message) for message in file_faults(Path(self.path).expanduser()))
            if self.validation or self.test:
                yield "path", "is one file; give the folder with a file per split, or set validation and test to null"
        elif folder is None:
            if self.path.startswith((".", "/", "~")) or self.path.count("/") > 1:
                yield "path", "is neither an existing folder nor a Hub id (owner/name)"
            return
        for key in ("train", "validation", "test"):
            split = getattr(self, key)
            if folder is not None and split and not self._local(split):
                there = ", ".join(sorted(file.name for file in folder.iterdir())[:10]) or "nothing"
                yield key, f"has no file in {folder}: {split}.csv, {split}-….parquet or the like; there is: {there}"

    def tables(self) -> Tables:
        return Tables(*(self._table(getattr(self, key)) for key in ("train", "validation", "test")))  # type: ignore[arg-type]

    def prepare(self, report: Reporter) -> Mapping[str, str]:
        """The commit of a data set on the Hub, or a digest of the folder's files."""
        splits = [split for split in (self.train, self.validation, self.test) if split]
        local = [file for split in splits for file in self._local(split)]
        if local:
            return {"data_revision": f"sha256:{digest(iter(local))}"}
        from huggingface_hub import HfApi

        try:
            commit = HfApi().dataset_info(self.path, revision=self.revision).sha
        except Exception as error:  # the network libraries change their errors between versions
            if self.revision is None:
                raise self._load_error(error) from error
            commit = self.revision  # offline, with a revision that was downloaded before
        return {"data_revision": str(commit)}

    def pinned(self, config: Mapping[str, Any], facts: Mapping[str, str]) -> Mapping[str, Any]:
        """With the commit as revision: a branch may move during a study, and all runs must load the same commit."""
        commit = facts.get("data_revision", "sha256:")
        return config if commit.startswith("sha256:") else {**config, "revision": commit}

    def _table(self, split: str | None) -> FileTable | HubTable | None:
        if split is None:
            return None
        saved, local = self._saved(split), self._local(split)
        if saved is not None:
            return load_saved(saved)
        if local:
            return FileTable(local, Layout(skip_malformed=self.skip_incomplete))
        try:
            return load_split(self.path, self.name, self.revision, split)
        except Exception as error:  # from the network, the data set's files, or its script
            raise self._load_error(error) from error

    def _local(self, split: str) -> list[Path]:
        """The files of a split where `path` is on this machine; none where it is a Hub id."""
        file, folder, saved = self._file(), self._folder(), self._saved(split)
        if saved is not None:
            return sorted(saved.glob("*.arrow"))
        return [file] if file else _files_of(folder, split) if folder else []

    def _saved(self, split: str) -> Path | None:
        """The folder of a split that `save_to_disk` wrote; a data set without splits is the training split."""
        folder = self._folder()
        places = [] if folder is None else [folder / split, *([folder] if split == self.train else [])]
        return next((place for place in places if (place / _STATE).is_file()), None)

    def _file(self) -> Path | None:
        path = Path(self.path).expanduser().absolute()
        return path if path.is_file() else None

    def _folder(self) -> Path | None:
        base = Path(self.path).expanduser().absolute()
        if not base.is_dir():
            return None
        inner = [base / part for part in (self.name, "data") if part]
        return next((folder for folder in inner if folder.is_dir()), base)

    def _load_error(self, error: Exception) -> UserError:
        return UserError(
            f"task.data.path = {self.path} ({self.name or 'default configuration'}) could not be loaded: "
            f"{type(error).__name__}: {first_line(error)}\n"
            "Check the name, the configuration, the split and the network; a gated data set needs its terms accepted "
            "on the Hub and a token (`hf auth login`, or HF_TOKEN); offline, give a folder with one file per split."
        )


def load_split(path: str, name: str | None, revision: str | None, split: str) -> HubTable:
    """One split, loaded by the `datasets` library, which uses its cache."""
    import datasets

    datasets.disable_progress_bars()
    return HubTable(datasets.load_dataset(path, name, revision=revision, split=split), f"{path} ({split})")


def load_saved(folder: Path) -> HubTable:
    """A split that the `datasets` library has written with `save_to_disk`."""
    import datasets

    return HubTable(datasets.load_from_disk(str(folder)), folder.name)


def _files_of(folder: Path, split: str) -> list[Path]:
    """The files of a split: one with its name, or numbered parts as on the Hub."""
    whole = [folder / f"{split}{ending}" for ending in endings() if (folder / f"{split}{ending}").is_file()]
    return whole[:1] or sorted(file for file in folder.glob(f"{split}-*") if format_of(file))
