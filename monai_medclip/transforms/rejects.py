"""What happens to a case that cannot be used: an error that names file and remedy, or a line in rejected.csv."""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, NamedTuple

from monai.data import CacheDataset
from monai.transforms import Compose
from tqdm import tqdm

from monai_medclip.notice import RESEARCH_USE

logger = logging.getLogger(__name__)


class BadInputError(ValueError):
    """An input that the pipeline must not use, with what to do about it."""

    def __init__(self, file: str | Path, reason: str, remedy: str) -> None:
        """Name the input.

        Args:
            file: path of the file, or the item's id where there is no file.
            reason: the rule that it breaks, with the offending value.
            remedy: what the user can do, as a sentence.
        """
        self.file, self.reason, self.remedy = str(file), reason.rstrip("."), remedy
        super().__init__(f"{self.file}: {self.reason}. {remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Survive the trip out of a data loader's worker process."""
        return type(self), (self.file, self.reason, self.remedy)


class Rejection(NamedTuple):
    """One line of rejected.csv; the data room lists bad rows of a manifest in the same columns."""

    id: str
    file: str
    row: str  # line of a manifest; empty for an image file
    reason: str
    remedy: str


def bad_input_cause(error: BaseException | None) -> BadInputError | None:
    """The `BadInputError` in a chain of causes (MONAI's `Compose` wraps what its transforms raise), if there is one."""
    while error is not None:
        if isinstance(error, BadInputError):
            return error
        error = error.__cause__ or error.__context__
    return None


def item_name(item: Mapping[Any, Any]) -> str:
    """What to call an item in an error: its image file, else its id."""
    image = item.get("image")
    file = image if isinstance(image, str | Path) else getattr(image, "meta", {}).get("filename_or_obj")
    return str(file or item.get("file") or item.get("id") or "an item without image path or id")


def write_rejected(rejections: Sequence[Rejection], path: str | Path) -> None:
    """Append to rejected.csv (columns id, file, row, reason, remedy, notice), leaving out lines that it already has."""
    path = Path(path)
    known: set[tuple[str, ...]] = set()
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            known = {tuple(row) for row in csv.reader(file)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if not known:
            writer.writerow((*Rejection._fields, "notice"))
        lines = [(*rejection, RESEARCH_USE) for rejection in rejections]
        writer.writerows(line for line in lines if line not in known)


class CheckedDataset(CacheDataset):
    """A `monai.data.CacheDataset` that runs every item through the deterministic transforms before training starts.

    Stock `CacheDataset` dies at the first bad file, or, where nothing is cached, in the middle of an epoch.
    """

    def __init__(
        self,
        data: Sequence[dict[str, Any]],
        transform: Sequence[Callable[..., Any]] | Callable[..., Any],
        *,
        on_error: str = "raise",
        rejected_csv: str | Path | None = None,
        cache_rate: float = 1.0,
        num_workers: int = 1,
        progress: bool = True,
    ) -> None:
        """Check and cache.

        Args:
            data: items, one dict each.
            transform: the transforms; those before the first random one are run once per item, here.
            on_error: "raise" stops at the first bad item; "skip" leaves bad items out and lists them.
            rejected_csv: the file that lists them; must be given for "skip".
            cache_rate: share of the items, 0 to 1, whose result is kept in memory. All are checked all the same.
            num_workers: threads.
            progress: whether to show a progress bar.

        Raises:
            BadInputError: at the first bad item, for "raise".
            ValueError: when nothing is left, or "skip" has nowhere to list what it skips.
        """
        if on_error not in ("raise", "skip"):
            raise ValueError(f"on_error is {on_error!r}; choose 'raise' or 'skip'.")
        if on_error == "skip" and rejected_csv is None:
            raise ValueError("on_error='skip' needs rejected_csv, so that no case is lost silently.")
        self.on_error, self.rejected_csv = on_error, rejected_csv
        self.rejected: list[Rejection] = []
        # Stock takes a Compose inside the Compose for a random transform, and would cache nothing from there on.
        flat = (transform if isinstance(transform, Compose) else Compose(transform)).flatten()
        super().__init__(data, flat, cache_rate=cache_rate, num_workers=num_workers, progress=progress)

    def set_data(self, data: Sequence[dict[str, Any]]) -> None:
        """Replace the items: check them all, keep the good ones, cache the first `cache_rate` of them."""
        self.data = list(data)
        limit = min(int(self.set_num), int(len(self.data) * self.set_rate))
        kept: list[dict[str, Any]] = []
        cache: list[dict[str, Any]] = []
        self.rejected = []
        with ThreadPool(self.num_workers) as pool:
            outcomes = pool.imap(self._attempt, range(len(self.data)))
            for item, outcome in zip(
                self.data, tqdm(outcomes, "Checking items", total=len(self.data), disable=not self.progress)
            ):
                if isinstance(outcome, BadInputError):
                    self._reject(item, outcome)
                    continue
                kept.append(item)
                if len(cache) < limit:
                    cache.append(outcome)
        self._report(len(self.data))
        self.data, self._cache, self.cache_num = kept, cache, len(cache)

    def _attempt(self, index: int) -> Any:
        try:
            return self._load_cache_item(index)
        except Exception as error:
            bad = bad_input_cause(error)
            if bad is None:
                raise
            return bad

    def _reject(self, item: Mapping[str, Any], error: BadInputError) -> None:
        if self.on_error == "raise":
            raise error
        self.rejected.append(Rejection(str(item.get("id", "")), error.file, "", error.reason, error.remedy))

    def _report(self, total: int) -> None:
        if not self.rejected or self.rejected_csv is None:
            return
        write_rejected(self.rejected, self.rejected_csv)
        logger.warning("%d of %d items rejected; see %s", len(self.rejected), total, self.rejected_csv)
        if len(self.rejected) == total:
            raise ValueError(f"All {total} items were rejected; {self.rejected_csv} says why.")

    def prepared(self) -> Iterator[dict[str, Any]]:
        """Every item as its deterministic transforms leave it, before the first random one."""
        for index in range(len(self.data)):
            cached = index < len(self._cache)
            yield dict(self._cache[index] if cached else self._load_cache_item(index))
