"""Indexes for the search of jobs: metadata, end users, error codes, and what was cancelled or expired.

Made beside what runs (`concurrently`, so outside a transaction): a million jobs take some seconds, and nothing waits.
Where it is broken off, it is migrated again after `drop index concurrently` of what Postgres calls invalid.

What each costs is said beside it, measured at 1,000,000 jobs, of 10,000 clients, on two busy cores. An index that every
job would be written to four times (a model's jobs, a worker's attempts) is not here: lists walk instead, and say how
far they looked.
"""

from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("llmjobs", "0021_roles"),
    ]

    operations = [
        # Few jobs end so; written once, when one does. Without it a list of them walks through all that completed.
        AddIndexConcurrently(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ["cancelled", "expired"])), fields=["state", "-id"], name="job_stopped"
            ),
        ),
        # Written once, at submit, where there is metadata: 10 to 30 us for three pairs, 58 bytes a job. A look-up takes
        # 1 ms; without it a pair that few jobs have is a walk through all requests.
        AddIndexConcurrently(
            model_name="jobrequest",
            index=GinIndex(
                fields=["metadata"],
                opclasses=["jsonb_path_ops"],
                condition=models.Q(("metadata", {}), _negated=True),
                fastupdate=False,
                name="request_metadata",
            ),
        ),
        # Written once, at submit, where an end user is named: about 10 us.
        AddIndexConcurrently(
            model_name="jobrequest",
            index=models.Index(
                condition=models.Q(("user__isnull", False)), fields=["user", "-job"], name="request_user"
            ),
        ),
        # Written where an attempt ends in an error: 2 to 5 us. An answer pays nothing.
        AddIndexConcurrently(
            model_name="jobresult",
            index=models.Index(
                condition=models.Q(("error_code__isnull", False)), fields=["error_code", "-job"], name="result_error"
            ),
        ),
    ]
