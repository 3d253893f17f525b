"""Scenarios that can be called by name, and every version that each has had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models, transaction
from django.utils import timezone

from wsnode.core.scenario import Scenario

if TYPE_CHECKING:
    from portal.accounts.models import User


class NamedScenarioQuerySet(models.QuerySet["NamedScenario"]):
    """Scenarios that can be called by name."""

    def names(self) -> list[str]:
        """All names, in order."""
        return list(self.order_by("name").values_list("name", flat=True))


class NamedScenario(models.Model):
    """A scenario that can be called by name; those of `scenarios/` are written by `seed_scenarios`."""

    name = models.CharField(max_length=63, unique=True)
    content = models.JSONField()
    """That of its newest version."""
    updated_at = models.DateTimeField(auto_now=True)
    baseline = models.ForeignKey("runs.Run", models.SET_NULL, null=True, blank=True, related_name="baseline_of")
    """What a new run of it is held against unless another run is chosen."""

    objects = NamedScenarioQuerySet.as_manager()

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name

    @property
    def scenario_model(self) -> Scenario:
        """The scenario as core knows it."""
        return Scenario.model_validate(self.content)

    @property
    def newest(self) -> ScenarioVersion | None:
        """Its newest version; None for one from before versions were kept."""
        return self.versions.order_by("-number").first()

    @classmethod
    def write(cls, scenario: Scenario, author: User | None, message: str = "") -> ScenarioVersion:
        """Make `scenario` the newest version of its name; where it is that already nothing is written."""
        content = scenario.model_dump(mode="json")
        with transaction.atomic():
            row, made = cls.objects.select_for_update().get_or_create(name=scenario.name, defaults={"content": content})
            newest = row.newest
            if newest is not None and newest.content == content and row.content == content:
                return newest
            if not made:
                row.content = content
                row.save(update_fields=["content", "updated_at"])
            number = newest.number + 1 if newest else 1
            return row.versions.create(number=number, content=content, author=author, message=message)


class ScenarioVersion(models.Model):
    """A scenario as it was from one edit to the next; never changed."""

    scenario = models.ForeignKey(NamedScenario, models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    content = models.JSONField()
    author = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    """None: it came from a file."""
    created_at = models.DateTimeField(default=timezone.now)
    message = models.CharField(max_length=500, blank=True)

    class Meta:
        ordering = ("scenario", "-number")
        constraints = [models.UniqueConstraint(fields=("scenario", "number"), name="one_version_per_number")]

    def __str__(self) -> str:
        return f"{self.scenario.name} v{self.number}"

    @property
    def scenario_model(self) -> Scenario:
        """The scenario as core knows it."""
        return Scenario.model_validate(self.content)
