"""The table of contents: which pages there are, in which order, under which names.

Owns order and titles. Does not own what a page says: that is `pages/<slug>.md`, whose first heading is its title (a
test holds the two together). Invariant: every file of `pages/` is here once, and everything here has a file.
"""

from dataclasses import dataclass
from itertools import chain
from pathlib import Path

PAGES = Path(__file__).parent / "pages"


@dataclass(frozen=True, slots=True)
class Page:
    """`about` is the line under its name at `/docs/`, and what search engines are told."""

    slug: str
    title: str
    about: str

    @property
    def path(self) -> Path:
        return PAGES / f"{self.slug}.md"


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    pages: tuple[Page, ...]


SECTIONS = (
    Section("Start", (Page("quickstart", "Quick start", "From nothing to the first job, by each door."),)),
    Section(
        "Concepts",
        (
            Page("concepts", "Concepts", "What a job is, which states it has, who takes part."),
            Page("fairness", "Who is next", "Tiers, weights, priorities, and what keeps everybody from starving."),
            Page("rate-limits", "Rate limits", "How a provider's limits are kept, and those of your clients."),
            Page("failures", "When things fail", "Retries, stopped providers, fallbacks, broken streams."),
            Page("guarantees", "Guarantees and their limits", "What is promised, what is not, what can be paid twice."),
            Page("comparison", "What to pick when", "Other queues, proxies and batch APIs beside this one."),
        ),
    ),
    Section(
        "Use",
        (
            Page("http-api", "HTTP API", "Submit, follow, cancel, list: by curl or from any language."),
            Page("bulk", "Many jobs at once", "JSON Lines by HTTP, and a command that can be run again."),
            Page("python", "Python", "Submit, follow and cancel inside your Django project."),
            Page("testing", "Testing your code", "Run jobs in your own tests, without a network."),
            Page("javascript", "JavaScript", "One module for browsers and Node."),
            Page("django-tasks", "Django Tasks", "Jobs by Django's own task interface."),
            Page("web-page", "The web page", "Try a deployment in the browser: prompts, history, usage."),
            Page("keys-and-sharing", "Keys and sharing", "API keys, several users a client, links to one answer."),
        ),
    ),
    Section(
        "How to",
        (
            Page("existing-project", "In an existing project", "Add llmjobs to the Django project that you have."),
            Page("providers", "Providers", "OpenAI, Azure, vLLM, Ollama; a proxy or a certificate authority of yours."),
            Page("tiers-and-limits", "Tiers and limits", "Classes of service, budgets, and who may ask for what."),
            Page("webhooks", "Told of a job's end", "Webhooks, and handlers in your own transaction."),
        ),
    ),
    Section(
        "Operate",
        (
            Page("deployment", "Deployment", "Docker, systemd, nginx: from a checkout to a site."),
            Page("kubernetes", "Kubernetes", "The same as manifests."),
            Page("pgbouncer", "PgBouncer", "What may go through a pooler, and what may not."),
            Page("upgrading", "Upgrading", "To a newer version, without downtime."),
            Page("backup", "Backup", "Back up, restore, fail over."),
            Page("console", "The console", "What operators see and do in the admin."),
            Page("monitoring", "Monitoring", "Metrics, health, logs, traces, and who is told."),
            Page("handbook", "Handbook", "Each alert: what it means, what to do."),
        ),
    ),
    Section(
        "Reference",
        (
            Page("configuration", "Configuration file", "Tiers, providers, models and clients as TOML."),
            Page("settings", "Settings", "Every setting and variable, with its default and its reason."),
            Page("commands", "Commands", "Every command and its options."),
            Page("errors", "Errors", "Every code that an answer or a job can carry."),
        ),
    ),
)

ALL = tuple(chain.from_iterable(section.pages for section in SECTIONS))
BY_SLUG = {page.slug: page for page in ALL}


def neighbours(page: Page) -> tuple[Page | None, Page | None]:
    """The page before and the one after, in the order of reading."""
    at = ALL.index(page)
    return (ALL[at - 1] if at else None), (ALL[at + 1] if at + 1 < len(ALL) else None)
