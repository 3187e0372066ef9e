"""A host project's tasks for TASKS, as `shop/tasks.py` would have them. Importing this needs Django 6."""

from django.tasks import task

SENT = []


def _chat(text, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


@task(backend="llm")
def summarise(text, *, words=3):
    SENT.append(text)
    return _chat(f"{text} [[tokens={words}]]", metadata={"of": "summarise"})


@task(backend="llm", queue_name="night", priority=40)
async def translate(text):
    return _chat(text, priority="low")


@task(backend="llm")
def embed(text):
    return {"endpoint": "/v1/embeddings", "input": text}


@task(backend="llm")
def careless(text):
    return text


@task(backend="llm")
def told(text):
    return _chat(text, on_settled="tests.host_handlers.save")


@task(backend="llm")
def keyed(text):
    return _chat(text, idempotency_key=f"key of {text}")


@task(backend="llm")
def joining(text):
    return _chat(text, dedupe="join")
