"""``POST /predict``: the page's answers for programs, as JSON, under the same limits."""

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import FastAPI, File, Query, Response, UploadFile
from pydantic import BaseModel, ConfigDict, Field

from app import served
from app.answers import answer_files
from app.cli import ClassifyAppConfig
from app.uploads import MEBIBYTE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_FORM_OVERHEAD = MEBIBYTE
"""Bytes that the multipart form may take beside the files."""

_DESCRIPTION = """
Send images as multipart form data, each in a field `files`:

    curl -F files=@galaxy.jpg -F files=@more.zip http://127.0.0.1:8501/predict

Every file is answered, in the order sent: by a class, or by an `error` that says why it could
not be used. The numbers are those of the page and of `classify-predict`.
"""


class ImageAnswer(BaseModel):
    """The answer for one image; where `error` is set the rest is null."""

    model_config = ConfigDict(populate_by_name=True)

    file: str
    class_: Annotated[str | None, Field(alias="class", description="Most probable class")] = None
    probabilities: Annotated[
        dict[str, float] | None, Field(description="Probability of every class; they sum to 1")
    ] = None
    set: Annotated[
        list[str] | None,
        Field(description="Classes that cannot be ruled out at the confidence asked for"),
    ] = None
    set_in_words: str | None = None
    never_ruled_out: Annotated[
        list[str] | None,
        Field(description="Classes that stand in every set: too few calibration images"),
    ] = None
    unlike_training: Annotated[
        bool | None, Field(description="Farther from the training images than 99 % of others")
    ] = None
    distance: float | None = None
    disagreement: Annotated[
        float | None, Field(description="Mutual information of an ensemble's members, nats")
    ] = None
    recall: Annotated[
        dict[str, Any] | None, Field(description="Of this class on test images, 95 % interval")
    ] = None
    precision: dict[str, Any] | None = None
    error: str | None = None


class Answers(BaseModel):
    """One answer per image, in the order sent."""

    confidence: float
    predictions: list[ImageAnswer]


class ModelDescription(BaseModel):
    """What answers."""

    checkpoint: str
    classes: list[str]
    size: int
    channels: int
    upload_limit_bytes: int
    most_images: int


def endpoint_paths() -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Paths and methods that belong to the endpoint when the page stands beside it."""
    return (
        ("/predict", ("POST",)),
        ("/model", ("GET",)),
        ("/health", ("GET",)),
        ("/openapi.json", ("GET",)),
    )


def create_endpoint(config: ClassifyAppConfig) -> "ASGIApp":
    """The endpoint as an ASGI application."""
    # The interactive pages of FastAPI load scripts from elsewhere, so they are left out.
    application = FastAPI(
        title="galaxy-augment classifier",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )

    @application.post("/predict", response_model=Answers, response_model_by_alias=True)
    def predict(
        response: Response,
        files: Annotated[list[UploadFile], File(description="Images, FITS files or zips of them")],
        confidence: Annotated[
            float, Query(ge=0.5, le=0.999, description="Chance that the set holds the truth")
        ] = config.confidence,
    ) -> Answers:
        """Classify images. 422 where not one of them could be used."""
        sent = [(file.filename or "", file.file.read()) for file in files]
        answers = answer_files(sent, confidence)
        predictions = [_as_model(answer.prediction) for answer in answers]
        if all(prediction.error is not None for prediction in predictions):
            response.status_code = 422
        return Answers(confidence=confidence, predictions=predictions)

    @application.get("/model")
    def model() -> ModelDescription:
        """What answers, and the limits of one request."""
        service, limits = served.classifier(), served.limits()
        return ModelDescription(
            checkpoint=service.folder.name,
            classes=list(service.class_names),
            size=service.classifier.size,
            channels=service.classifier.channels,
            upload_limit_bytes=limits.upload_bytes,
            most_images=limits.files,
        )

    @application.get("/health")
    def health() -> dict[str, str]:
        """Whether the server is up."""
        return {"status": "ok"}

    return BoundedBody(application, config.upload_limit_mb * MEBIBYTE + _FORM_OVERHEAD)


def _as_model(prediction: Any) -> ImageAnswer:
    answer = ImageAnswer(**prediction.as_json())
    record = prediction.class_record
    if record is not None:
        answer.recall = {
            "value": record["recall"],
            "interval": record["recall_interval"],
            "images": record["images"],
        }
        answer.precision = {
            "value": record["precision"],
            "interval": record["precision_interval"],
            "images": record["predicted"],
        }
    return answer


class BoundedBody:
    """Answer 413 to a body that is longer than allowed, before it is stored.

    Parameters
    ----------
    application
        What is guarded.
    most
        Most bytes of a body. What the header claims is checked first, what arrives is counted.
    """

    def __init__(self, application: "ASGIApp", most: int) -> None:
        self.application = application
        self.most = most

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Pass a request on, at most ``most`` bytes of it."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > self.most:
            await self._refuse(send)
            return
        received = 0
        refused = False

        async def counted() -> "Message":
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.most:
                refused = True
                # The form's parser stops here; its answer is replaced below.
                return {"type": "http.disconnect"}
            return message

        async def unless_refused(message: "Message") -> None:
            if not refused:
                await send(message)

        try:
            await self.application(scope, counted, unless_refused)
        except Exception:
            if not refused:
                raise
        if refused:
            await self._refuse(send)

    async def _refuse(self, send: "Send") -> None:
        body = f'{{"detail":"more than {self.most // MEBIBYTE - 1} MB were sent at once"}}'.encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": 413, "headers": headers})
        await send({"type": "http.response.body", "body": body})
