-- Two subjects may swap their names in one statement, as the mirror brings them: a name is to be nobody else's at its end.
-- A running older version cannot register new subjects until it is replaced: it relies on finding a name taken at once.

alter table public.subjects drop constraint subjects_name_key;
alter table public.subjects add constraint subjects_name_key unique (name) deferrable;
