"""The plugin as a host has it: here it is no installed one, so that its fixtures are named."""

from llmjobs.testing.plugin import llm_client, llm_simulator, llm_simulator_process

__all__ = ["llm_client", "llm_simulator", "llm_simulator_process"]
