"""A run and everything that is kept of it.

The row is the truth about a run's state, the broker only a wake-up. Every step is one conditional UPDATE on
(state, epoch): 0 rows mean that somebody else was first, and whoever sees that leaves without touching a host.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import models
from django.urls import reverse
from django.utils import timezone

from portal.runs.catalogue import NamedScenario, ScenarioVersion
from portal.runs.groups import RunGroup, new_id
from portal.runs.labels import Note, Tag
from portal.runs.record import Archive, Environment, EvidenceRow, RunEvent, RunSecond, Summary
from portal.runs.states import ACTIVE, OVER, STEPS, State
from portal.runs.subjects import DeclaredSubject
from portal.runs.windows import OtherWindow
from wsnode.core.scenario import Scenario

if TYPE_CHECKING:
    from portal.accounts.models import User

__all__ = [
    "Archive",
    "DeclaredSubject",
    "Environment",
    "EvidenceRow",
    "NamedScenario",
    "Note",
    "OtherWindow",
    "Run",
    "RunEvent",
    "RunGroup",
    "RunSecond",
    "ScenarioVersion",
    "Summary",
    "Tag",
]


def new_run_id() -> str:
    """`r-` and 10 base32 characters."""
    return new_id("r")


class RunQuerySet(models.QuerySet["Run"]):
    """Runs."""

    def queued(self) -> RunQuerySet:
        """Those that wait."""
        return self.filter(state=State.QUEUED)

    def active(self) -> RunQuerySet:
        """Those that a conductor has, or had and died over."""
        return self.filter(state__in=ACTIVE)

    def over(self) -> RunQuerySet:
        """Those that will never change again."""
        return self.filter(state__in=OVER)

    def abandoned(self, now: datetime) -> RunQuerySet:
        """Active ones whose conductor has let its lease lapse."""
        return self.active().filter(models.Q(lease_until__isnull=True) | models.Q(lease_until__lt=now))

    def next_in_line(self) -> RunQuerySet:
        """Per machine the queued run whose turn it is: none is active there, and none has waited longer."""
        this = models.OuterRef
        same = self.model._default_manager.filter(machine=this("machine"))
        older = models.Q(created_at__lt=this("created_at")) | models.Q(created_at=this("created_at"), pk__lt=this("pk"))
        return self.queued().filter(
            ~models.Exists(same.filter(state__in=ACTIVE)), ~models.Exists(same.filter(older, state=State.QUEUED))
        )

    def finished(self) -> RunQuerySet:
        """Those with both judgements, that can be compared."""
        return self.filter(state=State.FINISHED)

    def for_list(self) -> RunQuerySet:
        """Newest first, with what a list shows of each and nothing that is heavy."""
        return (
            self.select_related("summary", "created_by").defer("summary__result", "live").order_by("-created_at", "-id")
        )


class Run(models.Model):
    """One load against one subject: asked for, queued, carried out, judged, kept."""

    id = models.CharField(primary_key=True, max_length=12, default=new_run_id, editable=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.QUEUED)
    state_reason = models.TextField(blank=True)
    """What a queued run waits for; why a run that is over did not finish."""
    epoch = models.PositiveIntegerField(default=0)
    """Number of the conductor: each claim raises it, and only its holder may write."""
    lease_until = models.DateTimeField(null=True, blank=True)
    conductor = models.CharField(max_length=200, blank=True)
    takeovers = models.PositiveSmallIntegerField(default=0)
    """Conductors that died since the last new second."""
    machine = models.CharField(max_length=64)
    generators = models.JSONField(default=list)
    """Names of the load generators in the order in which the clients were dealt to them; set when first claimed."""
    weights = models.JSONField(default=list)
    """Their parts of the clients, in proportion; set with them."""

    scenario_name = models.CharField(max_length=63)
    scenario = models.JSONField()
    scenario_version = models.ForeignKey(ScenarioVersion, models.SET_NULL, null=True, blank=True, related_name="runs")
    """The version that it is; None where fields were set differently for this run."""
    accept_partial = models.BooleanField(default=False)
    target = models.CharField(max_length=70, blank=True)
    """A target of the lab's, with a port of it or without; empty: the lab's own server."""
    aim = models.JSONField(null=True, blank=True)
    """Where it went, a `portal.labs.aim.Aim`; set when first claimed."""
    subject_name = models.CharField(max_length=200, blank=True)
    subject_version = models.CharField(max_length=200, blank=True)
    subject_source = models.CharField(max_length=6, blank=True, choices=[(s, s) for s in ("given", "probed", "own")])
    reason = models.CharField(max_length=500, blank=True)
    """Why it was made, in the words of whoever asked for it."""
    tags = models.ManyToManyField(Tag, blank=True, related_name="runs")
    baseline = models.ForeignKey("self", models.SET_NULL, null=True, blank=True, related_name="contenders")
    """The run that it is to be held against."""
    group = models.ForeignKey(RunGroup, models.SET_NULL, null=True, blank=True, related_name="runs")
    group_place = models.PositiveIntegerField(null=True, blank=True)
    starred = models.BooleanField(default=False)
    """Kept for ever, and marked in history."""
    origin = models.CharField(
        max_length=8, default="web", choices=[(o, o) for o in ("web", "api", "schedule", "import")]
    )
    engine = models.CharField(max_length=40, blank=True)
    """Of our own server, as its host told; empty for a team's own."""
    environment_digest = models.CharField(max_length=64, blank=True)
    """Equal for runs whose hosts were alike (`portal.runs.environment`); set when it is stored."""

    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, models.PROTECT, related_name="runs")
    created_at = models.DateTimeField(default=timezone.now)
    preflight_at = models.DateTimeField(null=True, blank=True)
    preparing_at = models.DateTimeField(null=True, blank=True)
    running_at = models.DateTimeField(null=True, blank=True)
    collecting_at = models.DateTimeField(null=True, blank=True)
    judging_at = models.DateTimeField(null=True, blank=True)
    finished_at = models.DateTimeField(null=True, blank=True)
    """When it was over, whatever its end."""
    start_at_ns = models.BigIntegerField(null=True, blank=True)
    """The origin on the first conductor's wall clock (ns since the epoch)."""
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+"
    )

    live = models.JSONField(null=True, blank=True)
    """The latest `wsnode.core.protocol.Live` line; null before the first and once the run is over."""
    last_second = models.PositiveIntegerField(default=0)
    """Last merged second that was stored."""
    verdict = models.CharField(
        max_length=6, null=True, blank=True, choices=[(v, v) for v in ("passed", "failed", "none")]
    )
    validity = models.CharField(
        max_length=7, null=True, blank=True, choices=[(v, v) for v in ("valid", "suspect", "invalid")]
    )

    objects = RunQuerySet.as_manager()

    class Meta:
        ordering = ("-created_at", "-id")
        indexes = [
            models.Index(fields=("-created_at", "-id"), name="run_newest"),
            # Whole, lest a search for the few that wait become a walk through all that ever were, in their order.
            models.Index(fields=("state", "created_at", "id"), name="run_in_line"),
            models.Index(fields=("scenario_name", "-created_at"), name="run_scenario_newest"),
            models.Index(fields=("subject_name", "subject_version", "-created_at"), name="run_version_newest"),
            models.Index(fields=("verdict", "-created_at"), name="run_verdict_newest"),
            models.Index(fields=("validity", "-created_at"), name="run_validity_newest"),
            models.Index(fields=("created_by", "-created_at"), name="run_author_newest"),
            models.Index(fields=("engine", "-created_at"), name="run_engine_newest"),
            models.Index(fields=("-created_at",), condition=models.Q(starred=True), name="run_starred_newest"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=("machine",), condition=models.Q(state__in=ACTIVE), name="one_active_run_per_machine"
            ),
            models.CheckConstraint(condition=models.Q(state__in=State.values), name="run_state_known"),
        ]

    def __str__(self) -> str:
        return f"{self.id} ({self.scenario_name}, {self.state})"

    @property
    def is_active(self) -> bool:
        """A conductor has it, or had it and died."""
        return self.state in ACTIVE

    @property
    def is_over(self) -> bool:
        """It will never change again."""
        return self.state in OVER

    @property
    def scenario_model(self) -> Scenario:
        """The scenario as core knows it."""
        return Scenario.model_validate(self.scenario)

    @property
    def url(self) -> str:
        """The absolute address of its page."""
        return f"{settings.PORTAL_URL}/runs/{self.id}/"

    def get_absolute_url(self) -> str:
        """The path of its page."""
        return reverse("runs:run", args=[self.id])

    # --- the state machine: True where this caller made the step -----------------------------------------------------
    def _update(self, where: models.QuerySet[Run], **fields: Any) -> bool:
        """One conditional UPDATE; on success the instance follows."""
        if where.filter(pk=self.pk, epoch=self.epoch).update(**fields) == 0:
            return False
        for name, value in fields.items():
            setattr(self, name, value)
        return True

    def step(self, to: State, reason: str = "", **fields: Any) -> bool:
        """From the state that this instance knows to the next one.

        Raises:
            ValueError: the table has no such step: a mistake of the caller, nothing is written.
        """
        if to not in STEPS[State(self.state)]:
            raise ValueError(f"run {self.pk}: no step from {self.state} to {to.value}")
        now = timezone.now()
        fields |= {"state": to, "state_reason": reason}
        if to in OVER:
            fields |= {"finished_at": now, "lease_until": None, "live": None}
        else:
            fields[f"{to.value}_at"] = now
        return self._update(Run.objects.filter(state=self.state), **fields)

    def claim(self, conductor: str, lease: timedelta) -> bool:
        """Take a queued run whose turn it is, or a dead conductor's: the epoch rises, the lease begins.

        False where it is not this run's turn, its conductor is alive, or another claimed it first. May raise
        IntegrityError where another run of the machine becomes active at the same moment (PostgreSQL).
        """
        now = timezone.now()
        fields: dict[str, Any] = {"epoch": self.epoch + 1, "conductor": conductor, "lease_until": now + lease}
        if self.state == State.QUEUED:
            fields |= {"state": State.PREFLIGHT, "state_reason": "", "preflight_at": now}
            return self._update(Run.objects.next_in_line(), **fields)
        if not self.is_active:
            return False
        fields["takeovers"] = self.takeovers + 1
        return self._update(Run.objects.filter(state=self.state).abandoned(now), **fields)

    def renew(self, lease: timedelta, **fields: Any) -> bool:
        """Keep the lease, and write what the conductor has to tell; False: it is no longer this conductor's."""
        return self._update(Run.objects.active(), lease_until=timezone.now() + lease, **fields)

    def set_start(self, start_at_ns: int) -> bool:
        """Keep the origin of the load, once; False: the run is no longer this conductor's, or has another origin."""
        return self._update(Run.objects.active().filter(start_at_ns__isnull=True), start_at_ns=start_at_ns)

    def request_cancel(self, user: User) -> bool:
        """Ask for the end. A queued run is cancelled at once; of an active one the conductor sees the request.

        False where it is over already.
        """
        now = timezone.now()
        request = {"cancel_requested_at": now, "cancel_requested_by": user}
        # Whatever this instance knows may be old, and the epoch does not matter: a request is no step.
        mine = Run.objects.filter(pk=self.pk)
        at_once = {"state": State.CANCELLED, "state_reason": "cancelled before it began", "finished_at": now}
        made = (
            mine.queued().update(**request, **at_once)
            or mine.active().filter(cancel_requested_at__isnull=True).update(**request)
            or mine.active().exists()
        )
        self.refresh_from_db()
        return bool(made)

    def wait_for(self, reason: str) -> None:
        """Say on a queued run what it waits for."""
        if self.state_reason != reason:
            self._update(Run.objects.queued(), state_reason=reason)
