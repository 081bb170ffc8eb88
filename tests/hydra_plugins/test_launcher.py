"""The device pool in Hydra's own test suites for launchers."""

from __future__ import annotations

import pytest
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.test_utils.launcher_common_tests import IntegrationTestSuite, LauncherTestSuite

from hydra_plugins.paretune.launcher import ParetuneLauncher

pytestmark = pytest.mark.usefixtures("hydra_by_default", "light_fork_server")


def test_hydra_finds_it():
    assert ParetuneLauncher.__name__ in [found.__name__ for found in Plugins.instance().discover(Launcher)]


@pytest.mark.slow
@pytest.mark.parametrize(("launcher_name", "overrides"), [("paretune", []), ("paretune", ["hydra.launcher.slots=2"])])
class TestLauncher(LauncherTestSuite):
    pass


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize(("task_launcher_cfg", "extra_flags"), [({}, ["-m", "hydra/launcher=paretune"])])
class TestIntegration(IntegrationTestSuite):
    pass
