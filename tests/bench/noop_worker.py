"""A worker, whole but for the network: the provider is an object in its process that answers at once.

python -m tests.bench.noop_worker SLOTS [--count COUNT] [--profile FILE]

Prints "ready" when it is up, and drains when its input ends; with --count, once it has claimed so many.
"""

import argparse
import asyncio
import cProfile
import os
import sys
import threading

import django

ANSWER = '{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"ok"}}]}'


async def main(options: argparse.Namespace) -> None:
    from llmjobs.outcomes import Kind, Outcome, Usage
    from llmjobs.providers.calls import Call
    from llmjobs.worker import Options, Worker

    class NoProvider:
        """Says "ok", once to viewers and once as the answer."""

        async def run(self, call: Call) -> Outcome:
            call.on_text("ok")
            usage = Usage(10, 1, raw={"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11})
            return call.ended(Kind.COMPLETED, output=ANSWER, output_text="ok", usage=usage)

        async def close(self) -> None:
            pass

    worker = Worker(Options(concurrency=options.slots, max_jobs=options.count), NoProvider())
    loop = asyncio.get_running_loop()

    def stop_at_the_end_of_input() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(worker.stop)

    threading.Thread(target=stop_at_the_end_of_input, daemon=True).start()
    print("ready", flush=True)
    await worker.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.noop_worker", description=__doc__)
    parser.add_argument("slots", type=int)
    parser.add_argument("--count", type=int)
    parser.add_argument("--profile", metavar="FILE")
    given = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    if given.profile is None:
        asyncio.run(main(given))
    else:
        with cProfile.Profile() as profile:
            asyncio.run(main(given))
        profile.dump_stats(given.profile)
