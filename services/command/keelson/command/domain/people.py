"""People: known by their e-mail, in the vault alone; an event names the person by an id that says nothing."""

from keelson.command.transaction import Transaction


async def known_person(tx: Transaction, email: str, name: str | None = None) -> str:
    """Give the person who has an e-mail, in whichever case; one who is new is kept.

    One who is known keeps e-mail and name as they are: what one organisation says of somebody changes nothing for the
    others.
    """
    person_id = await tx.find_person(email)
    if person_id is None:
        person_id = tx.mint("person")
        tx.keep_person(person_id, email, name)
    return person_id
