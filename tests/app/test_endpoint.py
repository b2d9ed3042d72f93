"""POST /predict: the page's numbers for programs, under the same limits."""

from collections.abc import Callable
from typing import Any

import pytest
from strange_files import strange_files

testclient = pytest.importorskip("fastapi.testclient", reason="needs the extra app")

from app import served  # noqa: E402
from app.answers import answer_files  # noqa: E402
from app.endpoint import create_endpoint  # noqa: E402
from app.serving import create_application  # noqa: E402


@pytest.fixture
def client(serve: Callable[..., None]) -> Any:
    serve(upload_limit_mb=5, max_images=10)
    return testclient.TestClient(create_endpoint(served.choices()))


def sent(*files: tuple[str, bytes]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", file) for file in files]


def test_the_numbers_are_those_of_the_page(
    client: Any, galaxy_files: list[tuple[str, bytes]]
) -> None:
    reply = client.post("/predict", files=sent(*galaxy_files))
    assert reply.status_code == 200
    assert reply.json()["confidence"] == 0.9
    told = reply.json()["predictions"]
    expected = answer_files(galaxy_files, 0.9)
    assert [row["file"] for row in told] == [answer.name for answer in expected]
    for row, answer in zip(told, expected, strict=True):
        assert row["class"] == answer.prediction.label
        assert row["set"] == answer.prediction.prediction_set
        assert row["probabilities"] == pytest.approx(answer.prediction.probabilities, abs=1e-9)
        assert sum(row["probabilities"].values()) == pytest.approx(1)
        record = answer.prediction.class_record
        assert record is not None
        assert row["recall"]["value"] == record["recall"]
        low, high = row["recall"]["interval"]
        assert low <= row["recall"]["value"] <= high


def test_confidence_is_asked_for(client: Any, galaxy_files: list[tuple[str, bytes]]) -> None:
    def sizes(confidence: float) -> list[int]:
        reply = client.post(f"/predict?confidence={confidence}", files=sent(*galaxy_files))
        return [len(row["set"]) for row in reply.json()["predictions"]]

    assert all(few <= many for few, many in zip(sizes(0.5), sizes(0.999), strict=True))
    assert sizes(0.999) == [3] * 6  # more than any class's calibration images can promise
    assert client.post("/predict?confidence=1", files=sent(*galaxy_files)).status_code == 422


def test_a_bad_file_is_answered_beside_the_good_ones(
    client: Any, galaxy_files: list[tuple[str, bytes]]
) -> None:
    reply = client.post("/predict", files=sent(galaxy_files[0], ("bad.png", b"text")))
    assert reply.status_code == 200
    good, bad = reply.json()["predictions"]
    assert good["error"] is None
    assert bad["class"] is None
    assert "not an image" in bad["error"]
    reply = client.post("/predict", files=sent(("bad.png", b"text")))
    assert reply.status_code == 422
    assert "not an image" in reply.json()["predictions"][0]["error"]


def test_no_file_and_too_many_bytes(client: Any) -> None:
    assert client.post("/predict").status_code == 422
    reply = client.post("/predict", files=sent(("a.png", bytes(7 * 2**20))))
    assert reply.status_code == 413
    assert reply.json()["detail"] == "more than 5 MB were sent at once"


def test_a_body_without_a_length_is_counted_as_it_arrives(client: Any) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'

    def endless() -> Any:
        yield head
        for _ in range(12):
            yield bytes(2**20)

    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/predict", content=endless(), headers=kind).status_code == 413


def test_every_strange_file_gets_an_answer(
    client: Any, galaxy_files: list[tuple[str, bytes]]
) -> None:
    for file in strange_files(galaxy_files[0][1]):
        reply = client.post("/predict", files=sent(file))
        assert reply.status_code in (200, 413, 422), (file[0], reply.text)
    assert client.get("/health").json() == {"status": "ok"}


def test_a_host_name_of_someone_else_reaches_nothing(
    serve: Callable[..., None], galaxy_files: list[tuple[str, bytes]]
) -> None:
    serve(api_only=True)
    application = create_application(served.choices())
    own = testclient.TestClient(application, base_url="http://127.0.0.1:8501")
    assert own.get("/model").status_code == 200
    assert (
        testclient.TestClient(application, base_url="http://[::1]:8501").get("/health").is_success
    )
    rebound = testclient.TestClient(application, base_url="http://elsewhere.example:8501")
    assert rebound.get("/model").status_code == 400
    assert rebound.post("/predict", files=sent(galaxy_files[0])).status_code == 400
    serve(api_only=True, host="0.0.0.0")
    everywhere = create_application(served.choices())
    assert testclient.TestClient(everywhere).get("/health").status_code == 200


def test_the_interface_describes_itself(client: Any) -> None:
    description = client.get("/openapi.json").json()
    assert set(description["paths"]) == {"/predict", "/model", "/health"}
    answer = description["components"]["schemas"]["ImageAnswer"]["properties"]
    assert {"file", "class", "probabilities", "set", "error"} <= set(answer)
    model = client.get("/model").json()
    assert model["classes"] == ["double", "round", "elongated"]
    assert model["upload_limit_bytes"] == 5 * 2**20
    assert client.get("/docs").status_code == 404  # it would load scripts from elsewhere
