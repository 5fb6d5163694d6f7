-- A key may only send traces. Which roles there are is for whoever makes keys to say; to programs of the version before
-- a role that they do not know may do nothing.
ALTER TABLE api_key DROP CONSTRAINT api_key_role_check;
