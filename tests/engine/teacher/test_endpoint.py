from __future__ import annotations

from dataclasses import replace

import pytest

from engine.config import TeacherConfig
from engine.errors import UserError
from engine.teacher.endpoint import Endpoint, configured_endpoints, match_served, served_name, user_endpoint


@pytest.mark.parametrize(
    ("wanted", "served", "found"),
    [
        ("a", {"a": "a", "b": "b"}, "a"),
        ("/models/tiny", {"alias": "/models/tiny", "alias2": "/models/tiny", "other": "/x"}, "alias"),
        ("/models/tiny", {"/elsewhere/tiny": "/elsewhere/tiny", "other": "other"}, "/elsewhere/tiny"),
        ("/models/tiny", {"only": "only"}, "only"),
        ("/models/tiny", {"one": "one", "two": "two"}, None),
        ("/models/tiny", {"a/tiny": "a/tiny", "b/tiny": "b/tiny"}, None),
        ("org/model", {"only": "only"}, None),
        ("org/model", {}, None),
    ],
)
def test_which_served_model_is_meant(wanted: str, served: dict[str, str], found: str | None) -> None:
    endpoint = Endpoint("http://h/v1", wanted)
    if found is None:
        with pytest.raises(UserError, match="does not serve"):
            match_served(endpoint, served)
    else:
        assert match_served(endpoint, served) == replace(endpoint, model=found)


@pytest.mark.parametrize("url", ["http://host:8000", "http://host:8000/", "http://host:8000/v1", "http://host:8000/v1/"])
def test_an_endpoint_may_be_given_in_short(url: str) -> None:
    assert user_endpoint(url, "m", "").base_url == "http://host:8000/v1"
    assert user_endpoint(url, "m", "").api_key is None


@pytest.mark.parametrize("url", ["host:8000", "127.0.0.1", "ftp://host", "http://", "http://[half"])
def test_an_endpoint_must_be_a_url(url: str) -> None:
    with pytest.raises(UserError, match="is no URL of a server"):
        user_endpoint(url, "m", None)


def test_the_endpoints_of_a_configuration_share_its_model_and_the_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TeacherConfig(model="org/model", endpoint=("http://one:8000", "https://two/v1/"), api_key_env="KEY_OF_MINE")
    monkeypatch.delenv("KEY_OF_MINE", raising=False)
    places = ["http://one:8000/v1", "https://two/v1"]
    assert configured_endpoints(config) == [Endpoint(place, "org/model") for place in places]
    monkeypatch.setenv("KEY_OF_MINE", "secret")
    assert configured_endpoints(config) == [Endpoint(place, "org/model", "secret") for place in places]


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(Endpoint("http://h/v1", "m", "secret"))


def test_a_served_name_does_not_depend_on_where_the_folder_lies() -> None:
    assert served_name("/one/place/tiny") == served_name("/another/tiny") == "tiny"
    assert served_name("org/tiny") == "org/tiny"
