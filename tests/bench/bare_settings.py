"""The site with one more address, `/bare`: a plain DRF view, for POST /api/jobs to be measured beside."""

from project.settings import *  # noqa: F403

ROOT_URLCONF = "tests.bench.bare_urls"
