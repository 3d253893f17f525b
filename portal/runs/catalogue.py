"""Scenarios that can be called by name, and every version that each has had."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.conf import settings
from django.db import models, transaction
from django.urls import reverse
from django.utils import timezone
from pydantic import ValidationError

from wsnode.core.scenario import Scenario

if TYPE_CHECKING:
    from portal.accounts.models import User

MOST_LOOKED_AT = 50
"""Versions that are compared with a scenario to tell which one it is."""


class NamedScenarioQuerySet(models.QuerySet["NamedScenario"]):
    """Scenarios that can be called by name."""

    def offered(self) -> NamedScenarioQuerySet:
        """Those that a new run can be made of."""
        return self.filter(archived_at__isnull=True)

    def names(self) -> list[str]:
        """The names that are offered, in order."""
        return list(self.offered().order_by("name").values_list("name", flat=True))


class NamedScenario(models.Model):
    """A scenario that can be called by name; those of `scenarios/` are written by `seed_scenarios`."""

    name = models.CharField(max_length=63, unique=True)
    content = models.JSONField()
    """That of its newest version."""
    updated_at = models.DateTimeField(auto_now=True)
    baseline = models.ForeignKey("runs.Run", models.SET_NULL, null=True, blank=True, related_name="baseline_of")
    """What a new run of it is held against unless another run is chosen."""

    archived_at = models.DateTimeField(null=True, blank=True)
    """Since when it is offered no more; its runs and versions stay, and its file is left unread."""

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
    def url(self) -> str:
        """The absolute address of its page."""
        return f"{settings.PORTAL_URL}{self.get_absolute_url()}"

    def get_absolute_url(self) -> str:
        """The path of its page."""
        return reverse("scenarios:scenario", args=[self.name])

    @property
    def newest(self) -> ScenarioVersion | None:
        """Its newest version; None for one from before versions were kept."""
        return self.versions.order_by("-number").first()

    def version_of(self, scenario: Scenario) -> ScenarioVersion | None:
        """The newest of its versions that is this scenario, field by field."""
        versions = self.versions.order_by("-number")[:MOST_LOOKED_AT]
        return next((version for version in versions if version.is_of(scenario)), None)

    @classmethod
    def write(
        cls, scenario: Scenario, author: User | None, message: str = "", *, made_from: int | None = None
    ) -> ScenarioVersion:
        """Make `scenario` the newest version of its name; where it is that already nothing is written.

        `made_from` is the number of the version that its author saw (0: there was none of that name).

        Raises:
            Overtaken: `made_from` is given and is no longer the newest.
        """
        content = scenario.model_dump(mode="json")
        with transaction.atomic():
            row, made = cls.objects.select_for_update().get_or_create(name=scenario.name, defaults={"content": content})
            newest = row.newest
            if made_from is not None and made_from != (newest.number if newest else 0):
                raise Overtaken(newest)
            if newest is not None and newest.is_of(scenario) and row.content == newest.content:
                return newest
            if not made:
                row.content = content
                row.save(update_fields=["content", "updated_at"])
            number = newest.number + 1 if newest else 1
            return row.versions.create(number=number, content=content, author=author, message=message)


class Overtaken(Exception):
    """Somebody else has written a newer version meanwhile: `newest`."""

    def __init__(self, newest: ScenarioVersion | None) -> None:
        super().__init__(str(newest))
        self.newest = newest


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

    def is_of(self, scenario: Scenario) -> bool:
        """Whether it says the same. One from before a field was there says that field's default."""
        try:
            return self.scenario_model == scenario
        except ValidationError:
            return False
