"""The rules of projects."""

from keelson.command.domain.app import DeleteApp
from keelson.command.domain.project import CreateProject, DeleteProject, RenameProject
from keelson.events.app import AppDeleted
from keelson.events.project import ProjectCreated, ProjectDeleted, ProjectRenamed
from support.specs import APP, APP_EXISTS, ORG, ORG_EXISTS, PROJECT, PROJECT_EXISTS, given, id_of, minted

PROJECT_DELETED = (*PROJECT_EXISTS, (PROJECT, ProjectDeleted()))


def test_a_project_is_created_in_an_organisation() -> None:
    project = minted("project")
    created = given(*ORG_EXISTS).when(CreateProject(org_id=ORG, name="web"))
    created.then((project, ProjectCreated(name="web"))).answering(project_id=project)


def test_its_name_is_taken_in_the_organisation() -> None:
    given(*ORG_EXISTS).when(CreateProject(org_id=ORG, name="web")).taking((f"project.name:{ORG}", "web"))


def test_its_organisation_must_exist() -> None:
    given().when(CreateProject(org_id=ORG, name="web")).then_refused("not_found")


def test_an_id_that_exists_is_taken() -> None:
    again = CreateProject(org_id=ORG, name="other", project_id=PROJECT)
    given(*PROJECT_EXISTS).when(again).then_refused("id_taken")


def test_an_id_that_was_deleted_is_taken_for_ever() -> None:
    again = CreateProject(org_id=ORG, name="web", project_id=PROJECT)
    given(*PROJECT_DELETED).when(again).then_refused("id_taken")


def test_renaming_exchanges_the_name() -> None:
    renamed = given(*PROJECT_EXISTS).when(RenameProject(project_id=PROJECT, name="site"))
    renamed.then((PROJECT, ProjectRenamed(name="site"))).taking((f"project.name:{ORG}", "site"))


def test_renaming_to_the_same_name_changes_nothing() -> None:
    given(*PROJECT_EXISTS).when(RenameProject(project_id=PROJECT, name="web")).then_nothing()


def test_an_empty_project_is_deleted_and_its_name_is_free() -> None:
    deleted = given(*PROJECT_EXISTS).when(DeleteProject(project_id=PROJECT))
    deleted.then((PROJECT, ProjectDeleted())).answering(project_id=PROJECT)
    web = CreateProject(org_id=ORG, name="web")
    given(*PROJECT_EXISTS).when(DeleteProject(project_id=PROJECT), web).then(
        (PROJECT, ProjectDeleted()), (minted("project"), ProjectCreated(name="web"))
    )


def test_a_project_with_apps_is_in_use() -> None:
    given(*APP_EXISTS).when(DeleteProject(project_id=PROJECT)).then_refused("in_use")


def test_a_project_whose_apps_are_deleted_is_not() -> None:
    given(*APP_EXISTS, (APP, AppDeleted())).when(DeleteProject(project_id=PROJECT)).then((PROJECT, ProjectDeleted()))


def test_in_a_bundle_its_apps_may_be_deleted_just_before() -> None:
    given(*APP_EXISTS).when(DeleteApp(app_id=APP), DeleteProject(project_id=PROJECT)).then(
        (APP, AppDeleted()), (PROJECT, ProjectDeleted())
    )


def test_what_is_deleted_is_not_found() -> None:
    deleted = given(*PROJECT_DELETED)
    deleted.when(RenameProject(project_id=PROJECT, name="x")).then_refused("not_found")
    deleted.when(DeleteProject(project_id=PROJECT)).then_refused("not_found")


def test_what_never_was_is_not_found() -> None:
    given(*PROJECT_EXISTS).when(DeleteProject(project_id=id_of("project", 2))).then_refused("not_found")
