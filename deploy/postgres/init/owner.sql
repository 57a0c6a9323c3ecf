-- Run once, by the superuser, when the volume is new: the log's owner, who may create roles and is no superuser, and its
-- database. The services' roles are the migration's business (keelson migrate --passwords).

\set password `cat /run/secrets/owner_password`
-- A statement that fails is logged, with the password in it.
SET log_min_error_statement = panic;
CREATE ROLE keelson LOGIN CREATEROLE PASSWORD :'password';
CREATE DATABASE keelson OWNER keelson;
