"""The composition root: builds the parts in order, starts them, stops them in reverse.

The only file that knows every part. Tests start a whole server through it, on a free port.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from tocsin_server.alert_types import discover as discover_alert_types
from tocsin_server.alerting_parts import AlertingParts
from tocsin_server.alerting_parts import build as build_alerting
from tocsin_server.api.alerting import AlertingService
from tocsin_server.api.appends import AppendService
from tocsin_server.api.consumers import ConsumersService
from tocsin_server.api.deliveries import DeliveryService
from tocsin_server.api.event_drafts import Drafts
from tocsin_server.api.event_log import EventLogService
from tocsin_server.api.event_lookups import EventLookupService
from tocsin_server.api.event_redaction import EventRedaction
from tocsin_server.api.event_types import EventTypeService
from tocsin_server.api.explanations import ExplanationService
from tocsin_server.api.ingest import IDLE_S as INGEST_IDLE_S
from tocsin_server.api.ingest import IngestService
from tocsin_server.api.limits import LIMITS
from tocsin_server.api.notifications import NotificationsService
from tocsin_server.api.paging import PageTokens
from tocsin_server.api.previews import PreviewService
from tocsin_server.api.pulse import Pulse
from tocsin_server.api.readiness import Readiness
from tocsin_server.api.server import ApiServer, Service
from tocsin_server.api.silences import SilenceService
from tocsin_server.api.system import SystemService
from tocsin_server.config import ConfigError, Settings
from tocsin_server.dispatch.announcing import Announcer
from tocsin_server.dispatch.dispatcher import Dispatcher
from tocsin_server.dispatch.execution import THREADS
from tocsin_server.dispatch.loop import Loop
from tocsin_server.domain import config_webhooks
from tocsin_server.domain.alerting import AlertTypes
from tocsin_server.domain.built_in_types import BUILT_IN
from tocsin_server.domain.event_types import Catalogue
from tocsin_server.domain.notifications import EndpointConfiguration
from tocsin_server.domain.ports import EndpointKind, Runtime
from tocsin_server.domain.redaction import SecretKeys
from tocsin_server.endpoints import discover
from tocsin_server.endpoints.addresses import Egress
from tocsin_server.endpoints.http import HttpDoor
from tocsin_server.metrics_parts import bind as bind_metrics
from tocsin_server.plugins.loading import with_plugins
from tocsin_server.runtime import event_loop_factory, system_runtime
from tocsin_server.store.consumer_store import Consumers
from tocsin_server.store.database import LogFile, Readers, Store, log_status, open_store, path_of
from tocsin_server.store.delivery_store import Deliveries
from tocsin_server.store.event_log import EventReads
from tocsin_server.store.event_log_store import LogStore
from tocsin_server.store.event_types import EventTypes
from tocsin_server.store.execution import Runs
from tocsin_server.store.following import Following
from tocsin_server.store.notifications import ConfigurationCodec, Notifications
from tocsin_server.store.outbox import StoreOutbox
from tocsin_server.store.retention import Retention, Rules, horizons
from tocsin_server.store.room import has_room
from tocsin_server.store.secrets import KeyFile, SecretCipher
from tocsin_server.store.silences import SilenceStore
from tocsin_server.store.tail import Tail
from tocsin_server.store.writer import Writer
from tocsin_server.warming import Warming

log = structlog.get_logger("tocsin.app")
SERVICES: tuple[type[Service], ...] = (EventLogService, NotificationsService, AlertingService, SystemService)
SWITCH_INTERVAL_S = 0.0005
RETAIN_EVERY_S = 60.0
WEBHOOK_FIELDS = {"url": "url", "secret": "secret", "user": "username", "password": "password"}
ANNOUNCE_EVERY_S = 30.0  # the backstop behind the timer of the next notice
# Events are made by the thousand and kept for a while, and hold no cycles: look for these less often.
GC_THRESHOLDS = (20_000, 20, 20)


@dataclass(frozen=True, slots=True)
class StoreParts:
    """The running parts of the store."""

    readers: Readers
    tail: Tail
    writer: Writer
    log: LogStore
    consumers: Consumers
    deliveries: Deliveries


@dataclass(frozen=True, slots=True)
class NotificationParts:
    """The parts of notifications."""

    configurations: Notifications
    outbox: StoreOutbox
    silences: SilenceStore


class App:
    """A whole server. `start` returns when it serves, `stop` when nothing of it is left."""

    def __init__(self, settings: Settings, runtime: Runtime | None = None) -> None:
        self.settings = settings
        self.runtime = replace(runtime or system_runtime(), host=settings["server.endpoint_hostname"])
        self.port = self.metrics_port = 0
        self._pulse = Pulse(self.runtime.monotonic)
        self.bound = asyncio.Event()
        self.draining = asyncio.Event()
        self.log_id = ""
        self.failed: asyncio.Future[BaseException] | None = None
        self._cleanups: list[tuple[str, Callable[[], Awaitable[None] | None]]] = []

    @property
    def data(self) -> Path:
        """The data folder."""
        return Path(self.settings["store.data"]).absolute()

    @property
    def store_url(self) -> str:
        """Where everything is kept."""
        return str(self.settings["store.url"] or f"sqlite:///{self.data / 'tocsin.db'}")

    async def start(self) -> None:
        """Build and start everything; on a failure stop what has been started."""
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        self.failed = asyncio.get_running_loop().create_future()
        egress = _egress(self.settings["egress.allow"])
        server = await self._bind()
        metrics, self.metrics_port = await bind_metrics(self.settings, self.runtime)
        if metrics is not None:
            self._cleanups.append(("metrics", metrics.stop))
        # In a thread: health checks are answered, NOT_SERVING, while a migration takes its time.
        store = await asyncio.to_thread(open_store, self.store_url, self.runtime.new_id)
        self._cleanups.append(("store", lambda: _close(store)))
        key_file = KeyFile(Path(self.settings["store.key_file"] or self.data / "tocsin.key"), store)
        parts = self._start_store(store)
        door = HttpDoor(egress)
        kinds = discover(door)
        notify = self._build_notifications(parts, kinds, key_file)
        await notify.configurations.configure(log_webhooks(self.settings, kinds["webhook"]), kinds["webhook"].succeed)
        alert_parts = self._build_alerting(store, parts)
        dispatcher = await self._start_dispatcher(parts, notify, kinds, door, alert_parts)
        services = self._services(parts, notify, alert_parts, dispatcher, kinds, key_file)
        await self._serve(server, services, parts)
        if metrics is not None:
            self._cleanups.append(("metrics", metrics.stop))
            wal, told = LogFile(path_of(self.store_url)), (dispatcher, alert_parts.execution)
            metrics.serve(server.guard, self._pulse, parts.tail, parts.writer, wal, parts.deliveries, *told)
        gc.freeze()  # what was built at start never becomes garbage: collections look at less
        gc.set_threshold(*GC_THRESHOLDS)
        warming = Warming()
        warming.start()
        self._cleanups.append(("warming", warming.stop))

    def _services(
        self,
        parts: StoreParts,
        notify: NotificationParts,
        alert_parts: AlertingParts,
        dispatcher: Dispatcher,
        kinds: dict[str, EndpointKind],
        key_file: KeyFile,
    ) -> list[Service]:
        tokens = PageTokens(key_file.derive("page tokens"))
        digest_key = key_file.derive("digests")
        registered = EventTypes(parts.writer, parts.readers)
        catalogue = Catalogue(BUILT_IN, registered.load())
        secret_keys = SecretKeys(self.settings["event_log.redacted_keys"])
        drafts = Drafts(self.runtime, digest_key, EventRedaction(secret_keys), catalogue)
        configurations, silences = notify.configurations, notify.silences
        return [
            AppendService(parts.log, drafts, self.log_id),
            IngestService(parts.log, drafts, self.runtime, self.log_id, self.draining, INGEST_IDLE_S),
            EventLogService(parts.log, tokens, self.log_id),
            ConsumersService(parts.consumers, parts.log, tokens, self.log_id, digest_key),
            EventLookupService(parts.log),
            EventTypeService(catalogue, registered, tokens),
            NotificationsService(configurations, dispatcher, kinds, tokens, digest_key, self.runtime),
            DeliveryService(parts.deliveries, configurations, tokens),
            ExplanationService(parts.log, configurations, parts.deliveries, drafts, silences, tokens, self.runtime),
            PreviewService(parts.log, configurations, drafts, kinds, self.runtime, self.settings["server.ui_url"]),
            SilenceService(silences, tokens, digest_key, self.runtime),
            *alert_parts.services(
                kinds,
                tokens,
                digest_key,
                self.runtime,
                self.settings["server.ui_url"],
                path_of(self.store_url),
                self.draining,
            ),
            SystemService(self.log_id, "sqlite", LIMITS, ("dev", "reflection")),
        ]

    def _build_notifications(
        self, parts: StoreParts, kinds: dict[str, EndpointKind], key_file: KeyFile
    ) -> NotificationParts:
        codec = ConfigurationCodec(
            SecretCipher(key_file.derive("secret fields")), {name: kind.secret_fields for name, kind in kinds.items()}
        )
        paused_max_age_us = self.settings["notifications.paused_max_age"] * 1_000_000
        configurations = Notifications(parts.writer, parts.readers, codec, paused_max_age_us)
        ended_max_age_us = self.settings["notifications.ended_max_age"] * 1_000_000
        outbox = StoreOutbox(parts.writer, parts.readers, parts.tail, configurations, ended_max_age_us)
        return NotificationParts(configurations, outbox, SilenceStore(parts.writer, parts.readers))

    def _start_store(self, store: Store) -> StoreParts:
        readers = Readers(store)
        self._cleanups.append(("readers", readers.close))
        status = readers.submit(lambda connection: log_status(connection, None)).result()
        self.log_id = status.log_id
        tail = Tail(status.head, readers.submit(horizons).result())
        writer = Writer(store, self.runtime, tail.commit)
        writer.fatal = self._storage_failed
        writer.start()
        self._cleanups.append(("writer", writer.stop))
        reads = EventReads(readers, self.runtime.monotonic)
        following = Following(tail, reads, self.runtime)
        following.start()
        self._cleanups.append(("following", following.stop))
        consumers_of_log = Consumers(writer, readers, following, self.runtime)
        consumers_of_log.start()
        self._cleanups.append(("consumers", consumers_of_log.stop))
        return StoreParts(
            readers, tail, writer, LogStore(writer, reads, following), consumers_of_log, Deliveries(writer, readers)
        )

    def _retention(self, parts: StoreParts) -> Retention:
        rules = Rules(
            self.settings["event_log.retention.max_age"] * 1_000_000, self.settings["event_log.retention.max_events"]
        )
        return Retention(parts.writer, parts.readers, parts.tail, self.runtime, rules)

    def _build_alerting(self, store: Store, parts: StoreParts) -> AlertingParts:
        readers = Readers(store, THREADS, "alerts")
        self._cleanups.append(("alert readers", readers.close))
        runs = Runs(parts.writer, readers)
        runs.log_runs, runs.ui_url = self.settings["alerting.log_runs"], self.settings["server.ui_url"]
        runs.host = self.runtime.host
        runtime = self.runtime if self.settings["alerting.enabled"] else None
        return build_alerting(parts.writer, parts.readers, runs, self._alert_types(), runtime)

    def _alert_types(self) -> AlertTypes:
        off = self.settings["alerting.disabled_types"]
        types = with_plugins(discover_alert_types())
        unknown = sorted(id for id in off if types.find(id) is None)
        if unknown:
            log.warning("alerting.disabled_types names types that are not there", ids=unknown)
        return types.switched_off(off)

    async def _start_dispatcher(
        self,
        parts: StoreParts,
        notify: NotificationParts,
        kinds: dict[str, EndpointKind],
        door: HttpDoor,
        alert_parts: AlertingParts,
    ) -> Dispatcher:
        retention = self._retention(parts)
        announcer = Announcer(notify.silences.tell, self.runtime)
        announcing = Loop("silences", announcer.step, ANNOUNCE_EVERY_S)
        announcer.wake_in = announcing.wake_in
        dispatcher = Dispatcher(
            notify.outbox,
            self.runtime,
            kinds,
            door.close,
            self.settings["notifications.cycle_timers.notifications"],
            self.settings["server.ui_url"],
            self.settings["notifications.enabled"],
            alert_parts.execution,
            event_loop_factory(),
            (Loop("retention", retention.step, RETAIN_EVERY_S), announcing),
            self.settings["server.docs_url"],
        )

        def silences_changed() -> None:
            dispatcher.configurations_changed()
            dispatcher.wake(announcing)

        # Before the first run: what it queues is sent at once.
        alert_parts.alerts.changed = alert_parts.executions.due = dispatcher.alerts_changed
        alert_parts.runs.queued = dispatcher.deliveries_queued
        notify.configurations.changed = dispatcher.configurations_changed
        notify.silences.changed = silences_changed
        parts.deliveries.queued = dispatcher.deliveries_queued
        retention.nudge_router = parts.log.nudge_router = dispatcher.nudge
        await dispatcher.start()
        self._cleanups.append(("dispatcher", dispatcher.stop))
        parts.tail.listen(dispatcher.thread.loop, lambda deleted: dispatcher.log_changed(), dispatcher.follows_closely)
        return dispatcher

    async def _bind(self) -> ApiServer:
        """Take the port before anything is touched: a taken one leaves nothing behind."""
        listen, port = self.settings["server.listen"], self.settings["server.port"]
        server = ApiServer(self.runtime, SERVICES)
        self.port = await server.bind(listen, port)
        self._cleanups.append(("api", server.stop))
        self.bound.set()
        log.debug("bound", listen=listen, port=self.port)
        return server

    async def _serve(self, server: ApiServer, services: list[Service], parts: StoreParts) -> None:
        await server.serve(services)
        log.info("serving", port=self.port, data=str(self.data), log_id=self.log_id)

        path = path_of(self.store_url)
        readiness = Readiness(server.set_storing, lambda: has_room(parts.writer, path))
        parts.writer.full = readiness.full
        self._pulse.start()

        async def drain() -> None:
            log.info("draining")
            await self._pulse.stop()
            await readiness.stop()
            await server.set_serving(False)
            self.draining.set()
            parts.log.following.drain()
            await parts.consumers.drain()
            parts.deliveries.watch.drain()
            await server.stop()

        self._cleanups.append(("drain", drain))

    def _storage_failed(self, error: BaseException) -> None:
        """Have the process end: after a failed write the store has to be opened anew."""
        failed = self.failed
        if failed is not None:
            failed.get_loop().call_soon_threadsafe(_tell, failed, error)

    async def stop(self) -> None:
        """Stop in reverse order; a part that fails to stop does not keep the others from it."""
        while self._cleanups:
            name, cleanup = self._cleanups.pop()
            try:
                result = cleanup()
                if result is not None:
                    await result
            except Exception:
                log.exception("a part did not stop", part=name)


def _close(store: Store) -> None:
    store.close()
    log.info("stopped")


def _tell(failed: asyncio.Future[BaseException], error: BaseException) -> None:
    if not failed.done():
        failed.set_result(error)


def _egress(allow: Sequence[str]) -> Egress:
    try:
        return Egress(allow)
    except ValueError as error:
        raise ConfigError(f"egress.allow: {error}") from error


def log_webhooks(settings: Settings, kind: EndpointKind) -> list[EndpointConfiguration]:
    """Read the webhooks of the log itself; ConfigError says which setting cannot be used."""
    connections: dict[str, dict[str, object]] = {}
    for name in config_webhooks.NAMES:
        if settings[f"webhooks.{name}.url"]:
            connections[name] = {field: settings[f"webhooks.{name}.{part}"] for part, field in WEBHOOK_FIELDS.items()}
            for violation in kind.check(connections[name]):
                raise ConfigError(f"webhooks.{name}.{violation.path} {violation.description}")
    enabled = settings["event_log.notification.enabled"]
    if enabled and not connections:
        raise ConfigError("event_log.notification.enabled needs webhooks.event_update.url or webhooks.general.url")
    return config_webhooks.configured(connections, enabled, settings["event_log.notification.level"])


def data_file(settings: Settings) -> Path:
    """Give the file of the store."""
    return path_of(settings["store.url"] or f"sqlite:///{Path(settings['store.data']) / 'tocsin.db'}")
