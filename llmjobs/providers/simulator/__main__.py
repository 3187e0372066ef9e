"""`python -m llmjobs.providers.simulator`: without Django, for whoever starts it often."""

from llmjobs.providers.simulator.command import main

main()
