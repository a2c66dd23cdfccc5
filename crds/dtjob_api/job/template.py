"""`spec.workers.template`: what users may add to the worker pods."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from dtjob_api.job.training import MAX_STEPS
from dtjob_api.model import (
    NOT_NEGATIVE,
    BareQuantity,
    Json,
    Model,
    ObjectName,
    list_map,
    not_negative,
    rule,
    rules,
)

MAX_VOLUMES = 32

RESERVED_ENV_PREFIX = "DTJOB_"
RESERVED_VOLUMES = ("checkpoints", "data")
RESERVED_VOLUME_PREFIX = "dtjob-"
# /run is what /var/run leads to; nothing can be mounted in /proc and /sys.
RESERVED_MOUNT_PATHS = (
    "/data",
    "/dev/shm",  # noqa: S108 (in a pod)
    "/opt/dtjob",
    "/proc",
    "/run/dtjob",
    "/sys",
    "/tmp",  # noqa: S108 (in a pod)
    "/var/run/dtjob",
)
_BREAKING_VARIABLES = ["PYTHONEXECUTABLE", "PYTHONHOME", "PYTHONPLATLIBDIR"]
# As the kubelet takes them; another one keeps every pod from being made.
_POD_FIELDS = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
]

ConfigKey = Annotated[
    str,
    Field(
        min_length=1,
        max_length=253,
        json_schema_extra=rules(
            rule(
                "self.matches('^[-._a-zA-Z0-9]+$') && self != '.' && !self.startsWith('..')",
                "must be a key of a Secret or ConfigMap: letters, digits, '-', '_' and '.', and "
                "not '.' or beginning with '..'",
            )
        ),
    ),
]
"""A key of a Secret or ConfigMap."""

_RELATIVE: Json = rules(
    rule(
        "!self.startsWith('/') && !self.matches('(^|/)[.][.](/|$)')",
        "must be a path below the volume, without a leading slash and without '..'",
    )
)


class KeySelector(Model):
    """One key of a Secret or ConfigMap."""

    name: ObjectName
    key: ConfigKey
    optional: bool | None = None


class FieldSelector(Model):
    """A field of the worker's own pod."""

    field_path: Annotated[
        str,
        Field(
            min_length=1,
            max_length=253,
            json_schema_extra=rules(
                rule(
                    f"self in {_POD_FIELDS} || "
                    r"self.matches('^metadata[.](labels|annotations)\\[\'[^\']+\'\\]$')",
                    f"must be one of {', '.join(_POD_FIELDS)}, or metadata.labels['KEY'] or "
                    "metadata.annotations['KEY']",
                )
            ),
        ),
    ]


class EnvVarSource(Model):
    """Where a variable's value comes from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.secretKeyRef), has(self.configMapKeyRef), has(self.fieldRef)]"
                ".filter(given, given).size() == 1",
                "must name exactly one source: secretKeyRef, configMapKeyRef or fieldRef",
            )
        )
    )

    secret_key_ref: KeySelector | None = None
    config_map_key_ref: KeySelector | None = None
    field_ref: FieldSelector | None = None


class EnvVar(Model):
    """An environment variable of the workers."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!(has(self.value) && has(self.valueFrom))",
                "value and valueFrom exclude each other; remove one",
            )
        )
    )

    name: Annotated[
        str,
        Field(
            max_length=253,
            json_schema_extra=rules(
                rule(
                    "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
                    "must be a variable name: letters, digits and underscores, "
                    "not beginning with a digit",
                ),
                rule(
                    f"!self.startsWith('{RESERVED_ENV_PREFIX}')",
                    "names beginning with DTJOB_ are set by the operator; choose another name",
                ),
                rule(
                    f"!(self in {_BREAKING_VARIABLES})",
                    "keeps python from finding its own library and the trainer; leave it out, and "
                    "name the folders of your modules in PYTHONPATH",
                ),
            ),
        ),
    ]
    value: Annotated[str, Field(max_length=8192)] | None = None
    value_from: EnvVarSource | None = None


class ObjectSource(Model):
    """A whole Secret or ConfigMap."""

    name: ObjectName
    optional: bool | None = None


class EnvFromSource(Model):
    """A Secret or ConfigMap whose keys all become variables."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "has(self.secretRef) != has(self.configMapRef)",
                "must name exactly one source: secretRef or configMapRef",
            )
        )
    )

    prefix: (
        Annotated[
            str,
            Field(
                max_length=253,
                json_schema_extra=rules(
                    rule(
                        f"!self.startsWith('{RESERVED_ENV_PREFIX}')",
                        "names beginning with DTJOB_ are set by the operator; "
                        "choose another prefix",
                    ),
                    rule(
                        "self.matches('^([-._a-zA-Z][-._a-zA-Z0-9]*)?$')",
                        "must begin a variable's name: letters, digits, '-', '_' and '.', not "
                        "beginning with a digit",
                    ),
                ),
            ),
        ]
        | None
    ) = None
    secret_ref: ObjectSource | None = None
    config_map_ref: ObjectSource | None = None


class KeyToPath(Model):
    """A key of a Secret or ConfigMap and the file that it becomes."""

    key: ConfigKey
    path: Annotated[str, Field(min_length=1, max_length=1024, json_schema_extra=_RELATIVE)]


class ConfigMapVolume(Model):
    """A ConfigMap as files."""

    name: ObjectName
    items: Annotated[list[KeyToPath], Field(max_length=64)] | None = None
    optional: bool | None = None


class SecretVolume(Model):
    """A Secret as files."""

    secret_name: ObjectName
    items: Annotated[list[KeyToPath], Field(max_length=64)] | None = None
    optional: bool | None = None


class EmptyDirVolume(Model):
    """An empty folder that lives as long as the pod."""

    medium: Literal["Memory"] | None = None
    size_limit: BareQuantity | None = None


class ClaimVolume(Model):
    """An existing PersistentVolumeClaim."""

    claim_name: ObjectName
    read_only: bool | None = None


class Volume(Model):
    """A volume of the workers; only kinds that cannot reach into the node are admitted."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "[has(self.configMap), has(self.secret), has(self.emptyDir), "
                "has(self.persistentVolumeClaim)].filter(given, given).size() == 1",
                "must have exactly one source: configMap, secret, emptyDir or "
                "persistentVolumeClaim; hostPath and other kinds are not admitted",
            )
        )
    )

    name: Annotated[
        str,
        Field(
            max_length=63,
            json_schema_extra=rules(
                rule(
                    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
                    "must be a DNS label: lower-case letters, digits and inner hyphens",
                ),
                rule(
                    f"!(self in ['{RESERVED_VOLUMES[0]}', '{RESERVED_VOLUMES[1]}']) "
                    f"&& !self.startsWith('{RESERVED_VOLUME_PREFIX}')",
                    "checkpoints, data and names beginning with dtjob- are the operator's own; "
                    "choose another name",
                ),
            ),
        ),
    ]
    config_map: ConfigMapVolume | None = None
    secret: SecretVolume | None = None
    empty_dir: EmptyDirVolume | None = None
    persistent_volume_claim: ClaimVolume | None = None


class VolumeMount(Model):
    """Where a volume of the template appears in the workers."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    mount_path: Annotated[
        str,
        Field(
            max_length=1024,
            json_schema_extra=rules(
                rule(
                    "self.matches('^(/[^/:]+)+$') && !self.matches('/[.][.]?(/|$)')",
                    "must be an absolute path such as /mnt/cache, without a colon, '.', '..' or a "
                    "slash at its end",
                ),
                rule(
                    f"{list(RESERVED_MOUNT_PATHS)}.all(own, !(self + '/').startsWith(own + '/') "
                    "&& !(own + '/').startsWith(self + '/'))",
                    f"{', '.join(RESERVED_MOUNT_PATHS)}, what is in them and what holds them are "
                    "the operator's own; mount the volume elsewhere, such as at /mnt/cache",
                ),
            ),
        ),
    ]
    sub_path: Annotated[str, Field(max_length=1024, json_schema_extra=_RELATIVE)] | None = None
    read_only: bool | None = None


class Toleration(Model):
    """A taint that the workers tolerate."""

    key: Annotated[str, Field(max_length=317)] | None = None
    operator: Literal["Exists", "Equal"] | None = None
    value: Annotated[str, Field(max_length=63)] | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: (
        Annotated[
            int,
            Field(
                json_schema_extra=rules(
                    rule(
                        f"self >= 0 && self <= {MAX_STEPS}",
                        "must be 0 (leave the node at once) or a number of seconds, at most "
                        f"{MAX_STEPS}",
                    )
                )
            ),
        ]
        | None
    ) = None


def _size_limits(first: int, end: int) -> Json:
    """The rule on the limits of some volumes: for all at once it would be too dear.

    See `model.not_negative`; a rule on the field counts for every volume that there may be.
    """
    limit = "self.volumes[i].emptyDir.sizeLimit"
    return rule(
        f"!has(self.volumes) || {list(range(first, end))}.all(i, i >= self.volumes.size() || "
        f"!has(self.volumes[i].emptyDir) || !has({limit}) || {not_negative(limit)})",
        f"emptyDir.sizeLimit {NOT_NEGATIVE}",
        field=".volumes",
    )


class WorkerTemplate(Model):
    """What users may add to the worker pods."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            rule(
                "!has(self.volumeMounts) || self.volumeMounts.all(mount, has(self.volumes) "
                "&& self.volumes.exists(volume, volume.name == mount.name))",
                "every entry must name a volume of template.volumes; add the volume or correct "
                "the name",
                field=".volumeMounts",
            ),
            _size_limits(0, MAX_VOLUMES // 2),
            _size_limits(MAX_VOLUMES // 2, MAX_VOLUMES),
        )
    )

    env: Annotated[list[EnvVar], Field(max_length=64, json_schema_extra=list_map("name"))] = Field(
        default_factory=list
    )
    env_from: Annotated[list[EnvFromSource], Field(max_length=16)] = Field(default_factory=list)
    volumes: Annotated[
        list[Volume], Field(max_length=MAX_VOLUMES, json_schema_extra=list_map("name"))
    ] = Field(default_factory=list)
    volume_mounts: Annotated[
        list[VolumeMount], Field(max_length=32, json_schema_extra=list_map("mountPath"))
    ] = Field(default_factory=list)
    node_selector: Annotated[
        dict[str, Annotated[str, Field(max_length=63)]], Field(max_length=32)
    ] = Field(default_factory=dict)
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(default_factory=list)
