-- The two roles that the station's servers work under: neither owns anything, neither can change the schema.
-- A running older version sees no difference.

do $$
begin
  if not exists (select from pg_roles where rolname = 'pugmark_app') then
    create role pugmark_app nologin;
  end if;
  -- Reads tracking data and nothing else: what the agent's tools run as.
  if not exists (select from pg_roles where rolname = 'pugmark_reader') then
    create role pugmark_reader nologin;
  end if;
  -- Whoever owns the schema may act as either; since Postgres 16 creating a role no longer implies that.
  execute format('grant pugmark_app, pugmark_reader to %I', current_user);
end
$$;

grant usage on schema public to pugmark_app, pugmark_reader;

create schema if not exists extensions;
grant usage on schema extensions to pugmark_app, pugmark_reader;
