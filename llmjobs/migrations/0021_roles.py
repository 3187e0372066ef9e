"""Three groups: who looks, who acts, who configures. And permissions to pause, without that to edit.

Made once. A group that is there, by whatever road, is a host's own: nothing is added to it or taken from it, now or by
a later migrate; nor does unapplying this remove a group, since people may be in it.
"""

from typing import Any

from django.contrib.auth.management import create_permissions
from django.db import migrations

VIEWER, OPERATOR, ADMINISTRATOR = "llmjobs viewer", "llmjobs operator", "llmjobs administrator"

# By name. A viewer sees every table, but for prompts, outputs and what may quote them.
ACTS = (
    "view_job_content", "requeue_job", "cancel_job", "reprioritize_job", "move_job", "discard_job", "export_job",
    "redeliver_webhookdelivery", "retry_handlercall", "drain_worker", "pause_claims", "pause_client", "pause_model",
    "pause_provider",
)  # fmt: skip
EDITED = ("tier", "client", "apikey", "provider", "model")
CONFIGURES = ("erase_job", *(f"{verb}_{table}" for table in EDITED for verb in ("add", "change")))


def make_groups(apps: Any, schema_editor: Any) -> None:
    alias = schema_editor.connection.alias
    _make_permissions(apps, alias)
    permissions = apps.get_model("auth", "Permission").objects.using(alias)
    ours = permissions.filter(content_type__app_label="llmjobs")
    sees = [f"view_{model._meta.model_name}" for model in apps.get_app_config("llmjobs").get_models()]
    for name, codenames in (
        (VIEWER, sees),
        (OPERATOR, [*sees, *ACTS]),
        (ADMINISTRATOR, [*sees, *ACTS, *CONFIGURES]),
    ):
        group, is_new = apps.get_model("auth", "Group").objects.using(alias).get_or_create(name=name)
        if is_new:
            group.permissions.set(ours.filter(codename__in=codenames))


def _make_permissions(apps: Any, alias: str) -> None:
    """On a fresh database they would come after all migrations. What is there stays; what comes later finds these."""
    app = apps.get_app_config("llmjobs")
    before = getattr(app, "models_module", None)  # a history's app has none, and nothing would be made
    app.models_module = True
    try:
        create_permissions(app, verbosity=0, using=alias, apps=apps)
    finally:
        app.models_module = before


class Migration(migrations.Migration):
    dependencies = [
        ("llmjobs", "0020_pauses"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="client",
            options={"ordering": ["name"], "permissions": [("pause_client", "Can pause and resume clients")]},
        ),
        migrations.AlterModelOptions(
            name="model",
            options={"ordering": ["name"], "permissions": [("pause_model", "Can pause, resume and retry models")]},
        ),
        migrations.AlterModelOptions(
            name="provider",
            options={
                "ordering": ["name"],
                "permissions": [("pause_provider", "Can pause, resume and retry providers")],
            },
        ),
        migrations.RunPython(make_groups, migrations.RunPython.noop),
    ]
