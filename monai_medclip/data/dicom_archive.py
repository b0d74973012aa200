"""A DICOMweb archive: its series and objects are found (QIDO-RS), read (WADO-RS) and added to (STOW-RS)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from pydicom.dataset import Dataset

from monai_medclip.data.dicom_errors import ArchiveError

__all__ = ["Archive", "is_archive"]

_PAGE = 500  # results asked for at once; an archive may give fewer


class Archive:
    """A DICOMweb archive. Requests have time limits and are tried four times, 1, 2 and 4 s apart.

    Args:
        url: base of the DICOMweb services, such as ``https://archive/dicom-web``.
        environment: where credentials are looked up; the process's by default.

    Raises:
        ImportError: dicomweb-client is missing.
        ValueError: the address or the credentials cannot be used.

    References:
        DICOM PS3.18 10.4 (Retrieve), 10.5 (Store), 10.6 (Search)
    """

    def __init__(self, url: str, environment: Mapping[str, str] | None = None) -> None:
        """See the class."""
        try:
            from monai_medclip.data.dicom_session import dicomweb_client, translated
        except ImportError as error:
            remedy = 'A DICOMweb archive needs dicomweb-client: pip install "monai-medclip[dicomweb]"'
            raise ImportError(remedy) from error
        self.url = url.rstrip("/")
        self._client = dicomweb_client(url, os.environ if environment is None else environment)
        self._asked = translated

    def series(self, filters: Mapping[str, str]) -> list[Dataset]:
        """The series that match; attributes of their studies may be filters too.

        Args:
            filters: attribute -> value, with the standard's wildcards and ranges.

        Raises:
            ArchiveError: as all methods.
        """
        return list(self._pages("list series", self._client.search_for_series, "SeriesInstanceUID", dict(filters)))

    def instances(self, study_uid: str, series_uid: str, **filters: str) -> list[Dataset]:
        """The objects of a series: identifiers alone."""

        def search(**options: Any) -> Any:
            return self._client.search_for_instances(study_uid, series_uid, **options)

        return list(self._pages("list objects", search, "SOPInstanceUID", filters))

    def fetch(self, study_uid: str, series_uid: str, sop_uid: str) -> Dataset:
        """An object as it is stored, compressed or not."""

        def retrieve() -> Dataset:
            return self._client.retrieve_instance(study_uid, series_uid, sop_uid)

        return self._asked("hand out an object", retrieve)

    def holds(self, dataset: Dataset) -> bool:
        """Whether it has this object, by its UIDs."""
        uid = str(dataset.SOPInstanceUID)
        try:
            found = self.instances(dataset.StudyInstanceUID, dataset.SeriesInstanceUID, SOPInstanceUID=uid)
        except ArchiveError as error:
            if error.status == HTTPStatus.NOT_FOUND:  # some archives answer so for a series that they do not have
                return False
            raise
        return any(str(one.get("SOPInstanceUID", "")) == uid for one in found)

    def store(self, dataset: Dataset) -> Dataset:
        """Send one object.

        Returns:
            The archive's answer (PS3.18 10.5.3.2), also where it refuses the object in its own words.

        Raises:
            ArchiveError: no answer, or a refusal without such words.
        """

        def send() -> Dataset:
            try:
                return self._client.store_instances([dataset])
            except Exception as error:
                refused = _refusal(error)
                if refused is None:
                    raise
                return refused

        return self._asked("store an object", send)

    def _pages(self, what: str, search: Callable[..., Any], key: str, filters: Mapping[str, str]) -> Iterator[Dataset]:
        """Page after page, until one brings nothing new: some archives give fewer than asked, or ignore the offset."""
        seen: set[str] = set()
        while True:
            before = len(seen)
            ask = partial(search, search_filters=dict(filters), limit=_PAGE, offset=before)
            for one in self._asked(what, partial(_read, ask)):
                uid = str(one.get(key, ""))
                if uid not in seen:
                    seen.add(uid)
                    yield one
            if len(seen) == before:
                return


def is_archive(studies: str) -> bool:
    """Whether this is an archive's address rather than a folder."""
    return studies.lower().startswith(("http://", "https://"))


def _read(search: Callable[[], Any]) -> list[Dataset]:
    return [Dataset.from_json(one) for one in search()]


def _refusal(error: Exception) -> Dataset | None:
    """The body of an error answer (409) that says what was refused; ``None`` for other errors."""
    response = getattr(error, "response", None)
    if response is None or "json" not in response.headers.get("Content-Type", ""):
        return None
    answer = Dataset.from_json(response.json())
    return answer if "FailedSOPSequence" in answer else None
