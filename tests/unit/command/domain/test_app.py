"""The rules of apps."""

from keelson.command.domain.app import CreateApp, DeleteApp, RenameApp
from keelson.command.domain.env import CreateEnv, DeleteEnv
from keelson.command.domain.project import DeleteProject
from keelson.events.app import AppCreated, AppDeleted, AppRenamed
from keelson.events.env import EnvCreated, EnvDeleted
from keelson.events.project import ProjectDeleted
from support.specs import APP, APP_EXISTS, ENV, ENV_EXISTS, ORG, PROJECT, PROJECT_EXISTS, given, id_of, minted

APP_DELETED = (*APP_EXISTS, (APP, AppDeleted()))
SHOP = CreateApp(project_id=PROJECT, name="shop", app_id=APP)


def test_an_app_is_created_in_a_project() -> None:
    app = minted("app")
    created = given(*PROJECT_EXISTS).when(CreateApp(project_id=PROJECT, name="shop"))
    created.then((app, AppCreated(name="shop"), {"app_id": app})).answering(app_id=app)


def test_its_name_is_taken_in_the_project() -> None:
    given(*PROJECT_EXISTS).when(SHOP).taking((f"app.name:{PROJECT}", "shop"), (f"app.of:{ORG}", APP))


def test_its_project_must_be_there() -> None:
    given().when(SHOP).then_refused("not_found")
    given(*PROJECT_EXISTS, (PROJECT, ProjectDeleted())).when(SHOP).then_refused("not_found")


def test_an_id_that_ever_existed_is_taken() -> None:
    given(*APP_EXISTS).when(SHOP).then_refused("id_taken")
    given(*APP_DELETED).when(SHOP).then_refused("id_taken")


def test_renaming_exchanges_the_name() -> None:
    renamed = given(*APP_EXISTS).when(RenameApp(app_id=APP, name="store"))
    renamed.then((APP, AppRenamed(name="store"))).taking((f"app.name:{PROJECT}", "store")).answering(app_id=APP)


def test_renaming_to_the_same_name_changes_nothing() -> None:
    given(*APP_EXISTS, (APP, AppRenamed(name="store"))).when(RenameApp(app_id=APP, name="store")).then_nothing()


def test_an_app_without_environments_is_deleted() -> None:
    given(*APP_EXISTS).when(DeleteApp(app_id=APP)).then((APP, AppDeleted())).answering(app_id=APP)


def test_an_app_with_environments_is_in_use() -> None:
    given(*ENV_EXISTS).when(DeleteApp(app_id=APP)).then_refused("in_use")
    given(*ENV_EXISTS, (ENV, EnvDeleted())).when(DeleteApp(app_id=APP)).then((APP, AppDeleted()))


def test_in_a_bundle_environments_come_and_go_before_it() -> None:
    env = CreateEnv(app_id=APP, name="staging", env_id=id_of("env", 2))
    given(*APP_EXISTS).when(env, DeleteApp(app_id=APP)).then_refused("in_use", at=1)
    given(*ENV_EXISTS).when(DeleteEnv(env_id=ENV), DeleteApp(app_id=APP)).then((ENV, EnvDeleted()), (APP, AppDeleted()))
    given(*ENV_EXISTS).when(DeleteEnv(env_id=ENV), env, DeleteApp(app_id=APP)).then_refused("in_use", at=2)
    given(*APP_EXISTS).when(env, DeleteEnv(env_id=env.env_id or ""), DeleteApp(app_id=APP)).then(
        (id_of("env", 2), EnvCreated(name="staging"), {"env_id": id_of("env", 2)}),
        (id_of("env", 2), EnvDeleted()),
        (APP, AppDeleted()),
    )


def test_in_a_bundle_a_whole_tree_is_built_and_torn_down() -> None:
    given(*PROJECT_EXISTS).when(SHOP, DeleteProject(project_id=PROJECT)).then_refused("in_use", at=1)
    given(*PROJECT_EXISTS).when(SHOP, DeleteApp(app_id=APP), DeleteProject(project_id=PROJECT)).then(
        (APP, AppCreated(name="shop")), (APP, AppDeleted()), (PROJECT, ProjectDeleted())
    )


def test_what_is_deleted_is_not_found() -> None:
    deleted = given(*APP_DELETED)
    deleted.when(RenameApp(app_id=APP, name="x")).then_refused("not_found")
    deleted.when(DeleteApp(app_id=APP)).then_refused("not_found")
    deleted.when(CreateEnv(app_id=APP, name="x")).then_refused("not_found")
