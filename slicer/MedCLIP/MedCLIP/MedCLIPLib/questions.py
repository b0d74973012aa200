"""Questions about volumes of a scene to one server: sent where needed, answers shown and kept together."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from MedCLIPLib.client import Client, Heatmap, Image, ServerError, ServerInfo
from MedCLIPLib.known_ids import candidate_ids
from MedCLIPLib.scores import Case, Score, merged
from MedCLIPLib.volumes import (
    fingerprint,
    heat_maximum,
    is_heatmap,
    jump_to_peak,
    load_heatmap,
    peak_ras,
    save_volume,
    show_layers,
)

__all__ = ["NOT_CLINICAL", "Answer", "Questions", "said"]

NOT_CLINICAL = "For research only, not for clinical use."


class Answer(NamedTuple):
    """A heatmap in the scene."""

    volume: Any  # vtkMRMLScalarVolumeNode
    heatmap: Heatmap


class Questions:
    """What a reader asks about volumes of one scene.

    Attributes:
        scene: vtkMRMLScene.
        always_send: send volumes also where the server has them under an id.
    """

    def __init__(self, scene: Any) -> None:
        """Set the scene; nobody is connected yet."""
        self.scene = scene
        self.always_send = False
        self._client: Client | None = None
        self._sessions: dict[tuple[Any, ...], str] = {}
        self._scores: dict[tuple[Any, ...], list[Score]] = {}

    @property
    def client(self) -> Client:
        """The server's client.

        Raises:
            ServerError: nobody has connected.
        """
        if self._client is None:
            raise ServerError("No server is connected: enter its address and press Connect.")
        return self._client

    def connect_server(self, address: str, *, token: str = "", user: str = "", password: str = "") -> ServerInfo:
        """Connect, and sign in where the server wants that.

        Args:
            address: such as ``http://127.0.0.1:8000``.
            token: for servers with authentication.
            user: instead of a token.
            password: the user's.

        Raises:
            ValueError: the address cannot be one.
            ServerError: the server is not there, is another one, or refuses.
        """
        self._client = None
        self._scores.clear()
        client = Client(address, token=token)
        if user and not token:
            client = Client(address, token=client.sign_in(user, password))
        elif not token and client.wants_sign_in():
            raise ServerError("The server wants you to sign in: enter user and password, or a token.", 401)
        info = client.info()
        self._client = client
        return info

    def is_known(self, volume: Any) -> bool:
        """Whether the server has this volume already, so that nothing needs to be sent."""
        return self._known(volume) is not None

    def run(self, volume: Any, prompt: str, *, method: str = "", opacity: float = 0.65) -> Answer:
        """Ask for a heatmap, and show it over the volume in all slice views.

        Args:
            volume: vtkMRMLScalarVolumeNode: CT, or a radiograph as one slice.
            prompt: free text.
            method: one of the server's; "" for its default.
            opacity: of the map at its maximum.

        Raises:
            ValueError: the prompt cannot be asked, or the map does not belong to the volume.
            ServerError: the server's trouble, in words.
        """
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "heatmap.nrrd"
            heatmap = self.client.heatmap(self._image(volume), prompt, file, method=method)
            name = f"heat: {heatmap.prompt} ({heatmap.method})"
            node = load_heatmap(self.scene, file, volume, name=name)
        for key, value in (("Prompt", heatmap.prompt), ("Method", heatmap.method), ("Model", heatmap.model)):
            node.SetAttribute(f"MedCLIP.{key}", value)
        show_layers(self.scene, volume, node, opacity=opacity)
        jump_to_peak(self.scene, node)
        self._remember(volume, [heatmap.score])
        return Answer(node, heatmap)

    def findings(self, volume: Any) -> list[Score]:
        """Ask for all findings of the server's model; returns all scores of the volume, the likeliest first."""
        return self._remember(volume, self.client.findings(self._image(volume)))

    def scores(self, volume: Any) -> list[Score]:
        """What has been answered about a volume, the likeliest first."""
        return self._scores.get(fingerprint(volume), [])

    def similar_cases(self, volume: Any) -> list[Case]:
        """Cases of the server's index, the most similar first."""
        return self.client.similar_cases(self._image(volume))

    def _remember(self, volume: Any, scores: list[Score]) -> list[Score]:
        """Add answers about a volume."""
        key = fingerprint(volume)
        self._scores[key] = merged(self._scores.get(key, []), scores)
        return self._scores[key]

    def _image(self, volume: Any) -> Image:
        """What the server calls a volume, which is sent if it does not know it."""
        return self._known(volume) or self._send(volume)

    def _known(self, volume: Any) -> Image | None:
        """What the server calls a volume, if it has it."""
        if is_heatmap(volume):
            raise ValueError(f"{volume.GetName()!r} is a heatmap: choose the volume that it explains.")
        if not volume.GetImageData():
            raise ValueError(f"The volume {volume.GetName()!r} has no voxels: load an image.")
        session = self._sessions.get((self.client.address, *fingerprint(volume)))
        if session and self.client.has_session(session):
            return Image(session=session)
        ids = [] if self.always_send else candidate_ids(volume, self.client.address)
        return next((Image(id=image_id) for image_id in ids if self.client.has_image(image_id)), None)

    def _send(self, volume: Any) -> Image:
        """Send a volume's voxels and geometry, nothing else."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "volume.nii.gz"
            save_volume(volume, file)
            session = self.client.upload(file)
        self._sessions[(self.client.address, *fingerprint(volume))] = session
        return Image(session=session)


def said(answer: Answer) -> str:
    """An answer in words: score, method, model, and where a CT's map is highest."""
    heatmap, score = answer.heatmap, answer.heatmap.score
    number = f"p = {score.probability:.2f}, logit {score.logit:.2f}"
    words = [f"{score.finding}: {number}; {heatmap.method}; {heatmap.model}."]
    if heat_maximum(answer.volume) <= 0:
        words.append("Nothing in this image supports the prompt: the map is empty.")
    elif answer.volume.GetImageData().GetDimensions()[2] > 1:
        right, anterior, superior = peak_ras(answer.volume)
        words.append(f"The map is highest at R {right:.0f}, A {anterior:.0f}, S {superior:.0f} mm.")
    if heatmap.supported is False:
        words.append(
            "Do not trust this map: masking where it is hottest lowers the score no more than masking elsewhere."
        )
    return " ".join((*words, NOT_CLINICAL))
