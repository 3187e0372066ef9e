"""What is asked before an operation: why, and what its verb has to know."""

from typing import Any

from django import forms

from llmjobs.admin.confirm import ReasonForm
from llmjobs.models import Model
from llmjobs.operation_verbs import FORMATS, Verb
from llmjobs.operations import ITEMS_MAX
from llmjobs.states import Priority

RATE_LEAST = 0.001  # one in a quarter of an hour
SUGGESTIONS_MAX = 200
FORMAT_WORDS = {"jsonl": "JSON Lines", "csv": "CSV"}


class OperationForm(ReasonForm):
    """The fields that `verb` has; the reason comes last.

    `may_see_content`: who may not, is not asked for it. `is_one`: one job has no pace.
    """

    field_order = ["priority", "model", "format", "content", "rate_per_s", "reason"]

    def __init__(self, verb: Verb, data: Any = None, *, may_see_content: bool = False, is_one: bool = False) -> None:
        super().__init__(data)
        self._verb = verb
        if verb.name == "reprioritize":
            self.fields["priority"] = forms.ChoiceField(
                choices=[(priority.word, priority.word) for priority in Priority], initial="normal"
            )
        if verb.name in ("move", "requeue"):
            self.fields["model"] = self._model(is_needed=verb.name == "move")
        if verb.kind == "stream":
            words = [(name, FORMAT_WORDS[name]) for name in FORMATS]
            self.fields["format"] = forms.ChoiceField(choices=words, initial=FORMATS[0])
            if may_see_content:
                self.fields["content"] = forms.BooleanField(
                    required=False, label="With prompts and outputs", help_text="They are people's words."
                )
        if verb.is_gradual and not is_one:
            self.fields["rate_per_s"] = forms.FloatField(
                required=False, min_value=RATE_LEAST, max_value=ITEMS_MAX, label="Jobs a second",
                help_text="Gradually, at this pace. Empty: as fast as it goes.",
                widget=forms.NumberInput(attrs={"step": "any", "min": RATE_LEAST}),
            )  # fmt: skip
        self.order_fields(self.field_order)

    def params(self) -> dict[str, Any]:
        """Of the verb."""
        asked = {name: self.cleaned_data.get(name) for name in ("priority", "model", "format", "content")}
        return {name: value for name, value in asked.items() if value not in (None, "", False)}

    def _model(self, *, is_needed: bool) -> forms.ChoiceField:
        """A list of all that there are, where a provider takes any model, may be long: then by name."""
        names = list(Model.objects.order_by("name").values_list("name", flat=True)[: SUGGESTIONS_MAX + 1])
        help_text = "" if is_needed else "At another model than the one that was asked for. Empty: at that one."
        if len(names) > SUGGESTIONS_MAX:
            return forms.CharField(required=is_needed, max_length=128, help_text=help_text or "Its exact name.")  # type: ignore[return-value]
        choices = [(name, name) for name in names]
        return forms.ChoiceField(
            choices=choices if is_needed else [("", "as asked"), *choices], required=is_needed, help_text=help_text
        )
