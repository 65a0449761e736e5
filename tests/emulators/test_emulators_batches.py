"""The emulators' files and batches, by their documents."""

import json

import httpx
import pytest

LLAMA = {
    "deepinfra": "meta-llama/Llama-3.2-11B-Vision-Instruct",
    "aigateway": "meta/llama-3.2-11b-vision-instruct",
}


@pytest.fixture(params=LLAMA)
def name(request):
    return request.param


def client_of(emulator, **headers):
    headers = {"authorization": f"Bearer {emulator.api_key}", **headers}
    return httpx.Client(base_url=emulator.base_url, headers=headers)


def line(name, custom_id="a", url="/v1/chat/completions", **body):
    body = {"model": LLAMA[name], "messages": [{"role": "user", "content": "Hello!"}], **body}
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": url, "body": body})


def start(client, *lines):
    files = {"file": ("requests.jsonl", "\n".join(lines), "application/jsonl")}
    uploaded = client.post("/files", data={"purpose": "batch"}, files=files)
    body = {
        "input_file_id": uploaded.json()["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    return uploaded, client.post("/batches", json=body)


def test_a_batch_goes_from_validating_to_completed(emulator_of, name):
    emulator = emulator_of(name)
    emulator.dialect.batches.looks = 3
    with client_of(emulator) as client:
        uploaded, created = start(client, line(name, "a"), line(name, "b", temperature=9))
        assert {uploaded.status_code, created.status_code} == {200 if name == "deepinfra" else 201}
        assert created.json()["status"] == "validating"
        path = f"/batches/{created.json()['id']}"
        looks = [client.get(path).json() for _ in range(3)]
        assert [look["status"] for look in looks] == ["in_progress", "finalizing", "completed"]
        assert looks[-1]["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
        good, bad = (
            json.loads(client.get(f"/files/{looks[-1][kind]}/content").text)
            for kind in ("output_file_id", "error_file_id")
        )
    assert (good["custom_id"], good["response"]["status_code"], bad["custom_id"]) == ("a", 200, "b")
    assert (bad["response"] is None) == (name == "deepinfra")
    assert "temperature" in json.dumps(bad)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([("same", {}), ("same", {})], "not unique"),
        ([("a", {"url": "/v1/embeddings"})], "url"),
        ([(str(number), {}) for number in range(101)], "More than 100"),
    ],
)
def test_a_wrong_file_fails_its_validation(emulator_of, lines, said):
    emulator = emulator_of("aigateway")
    with client_of(emulator) as client:
        _, created = start(client, *(line("aigateway", custom_id, **more) for custom_id, more in lines))
        failed = client.get(f"/batches/{created.json()['id']}").json()
    assert failed["status"] == "failed"
    assert said in failed["errors"]["data"][0]["message"]
    assert not emulator.dialect.batches.asked


def test_deepinfra_takes_one_model_in_a_batch(emulator_of):
    emulator = emulator_of("deepinfra")
    with client_of(emulator) as client:
        other = line("deepinfra", "b", model="meta-llama/Llama-3.2-90B-Vision-Instruct")
        _, created = start(client, line("deepinfra", "a"), other)
        assert client.get(f"/batches/{created.json()['id']}").json()["status"] == "failed"


def test_what_is_not_there_or_not_allowed_is_refused(emulator_of, name):
    emulator = emulator_of(name)
    with client_of(emulator) as client:
        assert client.get("/batches/none").status_code == 404
        assert client.get("/files/none/content").status_code == 404
        assert client.post("/batches/none/cancel").status_code == 404
        assert client.post("/batches", json={"input_file_id": "none"}).status_code == 400
        assert client.post("/files", data={"purpose": "batch"}, files={"other": b"x"}).status_code == 400
        assert client.get("/batches").json()["data"] == []
    with client_of(emulator, authorization="Bearer wrong") as client:
        assert client.get("/batches").status_code == 401
        assert client.post("/files", files={"file": b"x"}).status_code == 401


def test_a_list_comes_in_pages(emulator_of, name):
    emulator = emulator_of(name)
    with client_of(emulator) as client:
        for _ in range(3):
            start(client, line(name))
        first = client.get("/batches", params={"limit": 2}).json()
        second = client.get("/batches", params={"limit": 2, "after": first["last_id"]}).json()
    assert ([batch["id"] for batch in first["data"]], first["has_more"]) == (["batch_1", "batch_2"], True)
    assert ([batch["id"] for batch in second["data"]], second["has_more"]) == (["batch_3"], False)
