"""The suite's tests of structured output, by each method: the suite itself goes by our default."""

import inspect

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests

from tests.langchain.standard.endpoints import ENDPOINTS, Hosted

METHODS = ("json_schema", "function_calling", "prompt")
SCHEMAS = ("pydantic", "typeddict", "json_schema")
TESTS = {
    **{f"test_structured_output-{schema}": ("test_structured_output", schema) for schema in SCHEMAS},
    **{
        f"test_structured_output_async-{schema}": ("test_structured_output_async", schema)
        for schema in SCHEMAS
    },
    "test_structured_output_pydantic_2_v1": ("test_structured_output_pydantic_2_v1",),
    "test_structured_output_optional_param": ("test_structured_output_optional_param",),
}


def suite_of(endpoint, method):
    return type(
        "Suite", (endpoint, ChatModelIntegrationTests), {"structured_output_kwargs": {"method": method}}
    )()


def takes(endpoint, method):
    record = endpoint.record()
    formats = record.models[0].response_formats if record.supports("response_format") else ()
    return method != "json_schema" or "json_schema" in formats


CASES = [
    pytest.param(endpoint, method, id=f"{endpoint.provider}-{method}")
    for endpoint in ENDPOINTS
    if issubclass(endpoint, Hosted)
    for method in METHODS
    if takes(endpoint, method)
]


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
@pytest.mark.parametrize(("endpoint", "method"), CASES)
async def test_a_hosted_endpoint(endpoint, method, test, emulator_of):
    suite = suite_of(endpoint, method)
    suite.reach(emulator_of(endpoint.provider))
    model = suite.chat_model_class(**suite.chat_model_params)
    name, *arguments = test
    if inspect.isawaitable(running := getattr(suite, name)(model, *arguments)):
        await running
    assert suite.emulator.requests
