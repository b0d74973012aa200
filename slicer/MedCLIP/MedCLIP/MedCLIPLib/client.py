"""What a MONAI Label server with the MedCLIP app is asked, by its stock REST routes. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote_plus, urlencode

from MedCLIPLib.multipart import Body, Part, decode, encode
from MedCLIPLib.scores import Case, Score, read_cases, read_scores
from MedCLIPLib.transport import Answer, ServerError, Transport

__all__ = ["Client", "Heatmap", "Image", "ServerError", "ServerInfo"]

Row = TypeVar("Row", Score, Case)

PROMPT_CHARACTERS = 300
_QUICK_S = 15.0  # for questions that need no network on the server
_UPLOAD_NAME = "volume.nii.gz"  # never the volume's own name: servers log names, and names may be a patient's


class ServerInfo(NamedTuple):
    """What the server offers."""

    name: str
    model: str  # name and version; "" where only the stock routes are there
    modality: str  # "CT" or "radiograph"; "" likewise
    methods: tuple[str, ...]  # the first is the default
    has_index: bool  # whether it finds similar cases
    intended_use: str


class Image(NamedTuple):
    """What a question is about: an image that the server has, or one that was sent."""

    id: str = ""  # of the server's datastore
    session: str = ""  # of an upload


class Heatmap(NamedTuple):
    """An answer to a prompt."""

    file: Path  # float32 NRRD, raw values, on the image's grid
    prompt: str
    method: str
    score: Score
    model: str  # name and version
    supported: bool | None  # whether masking where it is hottest costs more than masking elsewhere; None: not checked


class Client:
    """Questions to one server."""

    def __init__(self, address: str, *, token: str = "", timeout_s: float = 600.0) -> None:
        """Set the server; nothing is sent yet.

        Args:
            address: such as ``http://127.0.0.1:8000``.
            token: for servers with authentication.
            timeout_s: how long to wait for a map.

        Raises:
            ValueError: the address cannot be one.
        """
        self._transport = Transport(address, token=token, timeout_s=timeout_s)

    @property
    def address(self) -> str:
        """The server's address."""
        return self._transport.address

    def wants_sign_in(self) -> bool:
        """Whether authentication is on. Servers without it do not have the route."""
        try:
            return bool(self._transport.send("GET", "/auth/", timeout_s=_QUICK_S).json().get("enabled"))
        except ServerError as error:
            if error.status == 404:
                return False
            raise

    def sign_in(self, user: str, password: str) -> str:
        """A token for user and password.

        Raises:
            ServerError: they are wrong, or the server's identity provider is not there.
        """
        fields = urlencode({"username": user, "password": password, "grant_type": "password"}).encode()
        body = Body("application/x-www-form-urlencoded", fields)
        try:
            token = self._transport.send("POST", "/auth/token", body).json().get("access_token")
        except ServerError as error:
            if error.status in (401, 403, 500):  # stock servers answer 500 to a wrong password
                raise ServerError("Signing in failed: check user and password.", error.status) from error
            raise
        if not token:
            raise ServerError("Signing in failed: the server gave no token.")
        return str(token)

    def info(self) -> ServerInfo:
        """What the server offers: by ``/medclip/info``, or by the stock ``/info/`` where that is not served.

        Raises:
            ServerError: it runs another app, or none.
        """
        try:
            return _medclip_info(self._transport.send("GET", "/medclip/info", timeout_s=_QUICK_S).json())
        except ServerError as error:
            if error.status != 404:
                raise
        return _stock_info(self._transport.send("GET", "/info/", timeout_s=_QUICK_S).json())

    def has_image(self, image_id: str) -> bool:
        """Whether the datastore knows an id; a DICOMweb server's image is fetched by that, and then kept."""
        return self._exists("HEAD", f"/datastore/image?image={quote_plus(image_id)}", None)

    def has_session(self, session: str) -> bool:
        """Whether an upload is still kept."""
        return self._exists("GET", f"/session/{quote_plus(session)}", _QUICK_S)

    def upload(self, file: Path) -> str:
        """Send a volume; the server keeps it for an hour unless configured otherwise.

        Args:
            file: gzip NIfTI, which holds no patient data.

        Returns:
            the session's id.

        Raises:
            ServerError: it is too large, or refused.
        """
        body = encode({"files": Part(_UPLOAD_NAME, file.read_bytes())})
        session = self._transport.send("PUT", "/session/", body).json().get("session_id")
        if not session:
            raise ServerError("The server kept no session of the upload: see its log.")
        return str(session)

    def heatmap(self, image: Image, prompt: str, file: Path, *, method: str = "") -> Heatmap:
        """Where the image supports a prompt.

        Args:
            image: see `Image`.
            prompt: free text, 1 to 300 characters.
            file: where to write the map, ``*.nrrd``.
            method: one of `ServerInfo.methods`; "" leaves it to the server.

        Raises:
            ValueError: the prompt is blank or too long.
            ServerError: the server refused or failed.
        """
        params = {"prompt": checked_prompt(prompt), "map": "float", **({"method": method} if method else {})}
        answer = self._infer("heatmap", image, params, output="all")
        try:
            parts = decode(answer.content_type, answer.content)
            facts = json.loads(parts["params"].content)
            heatmap = _heatmap(facts, file)
            file.write_bytes(parts["image"].content)
        except (KeyError, ValueError, TypeError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"it lacks {error}"
            raise ServerError(f"The server's heatmap cannot be used: {reason}") from error
        return heatmap

    def findings(self, image: Image) -> list[Score]:
        """Scores of all findings that the server's model was made for.

        Raises:
            ServerError: the server refused or failed.
        """
        answer = self._infer("findings", image, {}, output="json").json()
        return self._read(read_scores, answer, "scores")

    def similar_cases(self, image: Image) -> list[Case]:
        """Cases of the server's index that are most like this image.

        Raises:
            ServerError: the server has no index, refused or failed.
        """
        answer = self._infer("similar_cases", image, {}, output="json").json()
        return self._read(read_cases, answer, "cases")

    def _infer(self, task: str, image: Image, params: Mapping[str, Any], *, output: str) -> Answer:
        """Ask a task by the stock route."""
        chosen = {"session_id": image.session} if image.session else {"image": image.id}
        query = urlencode({**chosen, "output": output})
        body = encode({"params": Part("", json.dumps(params).encode())})
        try:
            return self._transport.send("POST", f"/infer/{task}?{query}", body)
        except ServerError as error:
            if error.status == 404:
                asked = f"task {task!r}, image {image.id or 'sent by Slicer'}"
                raise ServerError(f"{error} ({asked})", 404) from error
            raise

    def _exists(self, method: str, path: str, timeout_s: float | None) -> bool:
        """Whether a route answers with 200; 404 is no. The stock datastore fails with 500 on an id it does not know."""
        try:
            self._transport.send(method, path, timeout_s=timeout_s)
        except ServerError as error:
            if error.status in (404, 500):
                return False
            raise
        return True

    @staticmethod
    def _read(reader: Callable[[Any], list[Row]], answer: Mapping[str, Any], key: str) -> list[Row]:
        """Rows of an answer."""
        if key not in answer:
            raise ServerError(f"The server's answer has no {key!r}: is it the MedCLIP app?")
        try:
            return reader(answer[key])
        except ValueError as error:
            raise ServerError(f"The server's answer cannot be used: {error}") from error


def checked_prompt(prompt: str) -> str:
    """The prompt without the white space around it.

    Raises:
        ValueError: it is blank or too long.
    """
    text = prompt.strip()
    if not text:
        raise ValueError("The prompt is empty: write what to look for, such as 'left pleural effusion'.")
    if len(text) > PROMPT_CHARACTERS:
        raise ValueError(f"The prompt has {len(text)} characters, {PROMPT_CHARACTERS} are allowed: shorten it.")
    return text


def _heatmap(facts: Mapping[str, Any], file: Path) -> Heatmap:
    """The facts that travel beside a map."""
    row = {"finding": facts["prompt"], "logit": facts["score"], "probability": facts["probability"]}
    model = f"{facts.get('model', '')} {facts.get('model_version', '')}".strip()
    supported = (facts.get("faithfulness") or {}).get("supports")
    return Heatmap(file, str(facts["prompt"]), str(facts["method"]), read_scores([row])[0], model, supported)


def _medclip_info(facts: Mapping[str, Any]) -> ServerInfo:
    """From our own route."""
    name = str(facts.get("name", ""))
    return ServerInfo(
        name=name,
        model=f"{name} {facts.get('version', '')}".strip(),
        modality=str(facts.get("modality", "")),
        methods=tuple(str(method) for method in facts.get("methods", ())),
        has_index=bool(facts.get("has_index")),
        intended_use=str(facts.get("intended_use", "")),
    )


def _stock_info(facts: Mapping[str, Any]) -> ServerInfo:
    """From the stock route: the tasks and their options."""
    tasks = facts.get("models", {})
    if "heatmap" not in tasks:
        raise ServerError("The server has no task 'heatmap': it does not run the MedCLIP app.")
    methods = tasks["heatmap"].get("config", {}).get("method", ())
    methods = (methods,) if isinstance(methods, str) else methods
    described = str(tasks["heatmap"].get("description", ""))
    name = str(facts.get("name", ""))
    return ServerInfo(name, "", "", tuple(str(method) for method in methods), "similar_cases" in tasks, described)
