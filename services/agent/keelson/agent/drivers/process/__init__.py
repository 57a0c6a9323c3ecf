"""Instances as local processes, each in a session of its own. Linux alone: it knows them by what /proc says."""

from keelson.agent.drivers.process.driver import ProcessDriver, Rules

__all__ = ["ProcessDriver", "Rules"]
