"""Test your own chains, agents and engines without a key: a server on a real socket that replies from a script.

    from llama_vision.testing import ScriptedServer, tool_call

    with ScriptedServer(tool_call("get_weather", city="Paris"), "It rains in Paris.") as server:
        model = ChatLlamaVision(**server.model_options)  # or LlamaVision
        print(my_agent(model, "How is the weather in Paris?"))
        assert server.requests[0].tools == ["get_weather"]

For pytest there is a fixture, `llama_vision_server`, in `llama_vision.testing.fixtures`.
"""

from llama_vision.testing.received import ReceivedRequest
from llama_vision.testing.script import Answer, Failure, ScriptEntry, tool_call
from llama_vision.testing.server import ScriptedServer

__all__ = ["Answer", "Failure", "ReceivedRequest", "ScriptEntry", "ScriptedServer", "tool_call"]
