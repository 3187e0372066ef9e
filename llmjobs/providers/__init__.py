"""Those who answer: `openai.py` calls a real provider, `simulator/` is one that costs nothing."""
