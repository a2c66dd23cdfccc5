"""A Kubernetes cluster on the machine at hand, for demonstrations, tests and benchmarks.

Three ways lead to one (see `localcluster.providers.choose`): a cluster that exists, kind in a
container engine, or Kubernetes' own binaries on a bare Linux machine.
"""
